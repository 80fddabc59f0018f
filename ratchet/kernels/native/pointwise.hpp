// The work on one token that training and decoding share: norms, SwiGLU, rotary positions.
#pragma once
#include "simd.hpp"

namespace ratchet {

// y = x / rms(x) * w; returns 1 / rms(x). Zhang & Sennrich 2019 (arXiv 1910.07467).
static inline float rms_norm_row(const float* x, const float* w, float* y, Index C, float eps) {
    Vec square = {};
    float rest = 0;
    Index i = 0;
    for (; i + LANES <= C; i += LANES) square += load(x + i) * load(x + i);
    for (; i < C; i++) rest += x[i] * x[i];
    const float inverse = 1.f / std::sqrt((sum(square) + rest) / float(C) + eps);
    for (i = 0; i + LANES <= C; i += LANES) store(y + i, load(x + i) * inverse * load(w + i));
    for (; i < C; i++) y[i] = x[i] * inverse * w[i];
    return inverse;
}

// y (C) = silu(gate) * up of x (2C).
static inline void swiglu_row(const float* x, float* y, Index C) {
    auto one = [](Vec gate, Vec up) { return gate / (1.f + exp(-gate)) * up; };
    Index i = 0;
    for (; i + LANES <= C; i += LANES) store(y + i, one(load(x + i), load(x + C + i)));
    if (i < C) {
        float gate[LANES] = {}, up[LANES] = {}, out[LANES];
        for (Index j = i; j < C; j++) gate[j - i] = x[j], up[j - i] = x[C + j];
        store(out, one(load(gate), load(up)));
        for (Index j = i; j < C; j++) y[j] = out[j - i];
    }
}

// One head of a query or key: normalise (where w is given), rotate by its position, scale. Returns 1 / rms, or 1.
// cos_sin (D): the first half cosines, the second sines. D is a multiple of 16.
static inline float norm_and_rotate(const float* x, const float* w, const float* cos_sin, float eps, float scale,
                                    float* y, int D) {
    float inverse = 1.f;
    if (w) {
        float lanes[8] = {};
        for (int i = 0; i < D; i += 8)
            for (int j = 0; j < 8; j++) lanes[j] += x[i + j] * x[i + j];
        float all = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
        inverse = 1.f / std::sqrt(all / float(D) + eps);
    }
    const int half = D / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    for (int i = 0; i < half; i++) {
        float a = x[i] * inverse, b = x[i + half] * inverse;
        if (w) a *= w[i], b *= w[i + half];
        y[i] = (a * c[i] - b * s[i]) * scale;
        y[i + half] = (b * c[i] + a * s[i]) * scale;
    }
    return inverse;
}

// The gradient of norm_and_rotate without its scale: from g (in place: to the gradient of x); adds to gw where w is
// given.
static inline void norm_and_rotate_backward(float* g, const float* x, const float* w, const float* cos_sin, float eps,
                                            float* gw, int D) {
    const int half = D / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    for (int i = 0; i < half; i++) {
        const float a = g[i], b = g[i + half];
        g[i] = a * c[i] + b * s[i];
        g[i + half] = b * c[i] - a * s[i];
    }
    if (!w) return;
    float square[8] = {}, dots[8] = {};
    for (int i = 0; i < D; i += 8)
        for (int j = 0; j < 8; j++) {
            square[j] += x[i + j] * x[i + j];
            dots[j] += x[i + j] * g[i + j] * w[i + j];
        }
    float all = 0, dot = 0;
    for (int j = 0; j < 8; j++) all += square[j], dot += dots[j];
    const float inverse = 1.f / std::sqrt(all / float(D) + eps), common = dot * inverse * inverse / float(D);
    for (int i = 0; i < D; i++) {
        gw[i] += g[i] * x[i] * inverse;
        g[i] = (g[i] * w[i] - x[i] * common) * inverse;
    }
}

}  // namespace ratchet
