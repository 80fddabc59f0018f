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

// Sum of x[i] * y[i] (* z[i]) over D numbers, D a multiple of 16, in an order that is the same for every width.
template <class F>
static inline float sum_over(int D, const F& term) {
    float lanes[16] = {};
    for (int i = 0; i < D; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += term(i + j);
    for (int width = 8; width; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

// 1 / rms of one head.
static inline float inverse_rms(const float* x, float eps, int D) {
    return 1.f / std::sqrt(sum_over(D, [&](int i) { return x[i] * x[i]; }) / float(D) + eps);
}

// One head of a query or key: normalise (where w is given), rotate by its position, scale. Returns 1 / rms, or 1.
// cos_sin (D): the first half cosines, the second sines. D is a multiple of 16.
static inline float norm_and_rotate(const float* x, const float* w, const float* cos_sin, float eps, float scale,
                                    float* __restrict y, int D) {
    const float inverse = w ? inverse_rms(x, eps, D) : 1.f;
    const int half = D / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    const Vec all = splat(inverse), by = splat(scale);
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
        Vec a = load(x + i) * all, b = load(x + i + half) * all;
        if (w) a *= load(w + i), b *= load(w + i + half);
        const Vec ci = load(c + i), si = load(s + i);
        store(y + i, (a * ci - b * si) * by);
        store(y + i + half, (b * ci + a * si) * by);
    }
    for (; i < half; i++) {
        float a = x[i] * inverse, b = x[i + half] * inverse;
        if (w) a *= w[i], b *= w[i + half];
        y[i] = (a * c[i] - b * s[i]) * scale;
        y[i + half] = (b * c[i] + a * s[i]) * scale;
    }
    return inverse;
}

// The gradient of norm_and_rotate without its scale: from g (in place: to the gradient of x); adds to gw where w is
// given.
static inline void norm_and_rotate_backward(float* __restrict g, const float* x, const float* w, const float* cos_sin,
                                            float eps, float* __restrict gw, int D) {
    const int half = D / 2;
    const float *c = cos_sin, *s = cos_sin + half;
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
        const Vec a = load(g + i), b = load(g + i + half), ci = load(c + i), si = load(s + i);
        store(g + i, a * ci + b * si);
        store(g + i + half, b * ci - a * si);
    }
    for (; i < half; i++) {
        const float a = g[i], b = g[i + half];
        g[i] = a * c[i] + b * s[i];
        g[i + half] = b * c[i] - a * s[i];
    }
    if (!w) return;
    const float inverse = inverse_rms(x, eps, D);
    const float dot = sum_over(D, [&](int j) { return x[j] * g[j] * w[j]; });
    const float common = dot * inverse * inverse / float(D);
    for (int d = 0; d < D; d += 16)
        for (int j = d; j < d + 16; j++) {
            gw[j] += g[j] * x[j] * inverse;
            g[j] = (g[j] * w[j] - x[j] * common) * inverse;
        }
}

}  // namespace ratchet
