// Root-mean-square norm and SwiGLU, forward and backward. Shapes: T tokens, C channels.
#include "threads.hpp"
#include "pointwise.hpp"

namespace ratchet {
namespace {

constexpr Index BLOCK = 32;  // tokens per job; fixed, so that partial sums do not depend on the number of threads

thread_local Scratch partial_sums;

template <class Job>
void blocks(Index T, Index threads, const Job& job) {
    parallel((T + BLOCK - 1) / BLOCK, threads,
             [&](Index b) { job(b, b * BLOCK, (b + 1) * BLOCK < T ? (b + 1) * BLOCK : T); });
}

void rms_norm_row_backward(const float* g, const float* x, const float* w, float inverse, float* gx, float* gw,
                           Index C) {
    Vec dot = {};
    float rest = 0;
    Index i = 0;
    for (; i + LANES <= C; i += LANES) {
        Vec gi = load(g + i), xi = load(x + i);
        dot += gi * load(w + i) * xi;
        store(gw + i, load(gw + i) + gi * xi * inverse);
    }
    for (; i < C; i++) {
        rest += g[i] * w[i] * x[i];
        gw[i] += g[i] * x[i] * inverse;
    }
    const float common = (sum(dot) + rest) * inverse * inverse / float(C);
    for (i = 0; i + LANES <= C; i += LANES)
        store(gx + i, (load(g + i) * load(w + i) - load(x + i) * common) * inverse);
    for (; i < C; i++) gx[i] = (g[i] * w[i] - x[i] * common) * inverse;
}

}  // namespace
}  // namespace ratchet

using namespace ratchet;

extern "C" {

// y (T, C) = x / rms(x) * w; inverse (T,) = 1 / rms, kept for the backward pass.
void ratchet_rms_norm(const float* x, const float* w, float* y, float* inverse, Index T, Index C, float eps,
                      Index threads) {
    blocks(T, threads, [&](Index, Index from, Index to) {
        for (Index t = from; t < to; t++) inverse[t] = rms_norm_row(x + t * C, w, y + t * C, C, eps);
    });
}

void ratchet_rms_norm_grad(const float* g, const float* x, const float* w, const float* inverse, float* gx, float* gw,
                           Index T, Index C, Index threads) {
    const Index count = (T + BLOCK - 1) / BLOCK;
    float* partial = partial_sums.get<float>(count * C);
    blocks(T, threads, [&](Index b, Index from, Index to) {
        memset(partial + b * C, 0, size_t(C) * 4);
        for (Index t = from; t < to; t++)
            rms_norm_row_backward(g + t * C, x + t * C, w, inverse[t], gx + t * C, partial + b * C, C);
    });
    memset(gw, 0, size_t(C) * 4);
    for (Index b = 0; b < count; b++)
        for (Index i = 0; i < C; i++) gw[i] += partial[b * C + i];
}

// y (T, C) = silu(gate) * up of x (T, 2C).
void ratchet_swiglu(const float* x, float* y, Index T, Index C, Index threads) {
    blocks(T, threads, [&](Index, Index from, Index to) {
        for (Index t = from; t < to; t++) swiglu_row(x + t * 2 * C, y + t * C, C);
    });
}

void ratchet_swiglu_grad(const float* g, const float* x, float* gx, Index T, Index C, Index threads) {
    blocks(T, threads, [&](Index, Index from, Index to) {
        for (Index t = from; t < to; t++) {
            const float *gate = x + t * 2 * C, *up = gate + C, *gt = g + t * C;
            float *g_gate = gx + t * 2 * C, *g_up = g_gate + C;
            auto both = [](Vec gi, Vec a, Vec u, Vec& ga, Vec& gu) {
                Vec s = 1.f / (1.f + exp(-a)), silu = a * s;
                gu = gi * silu;
                ga = gi * u * (s + silu * (1.f - s));
            };
            Vec ga, gu;
            Index i = 0;
            for (; i + LANES <= C; i += LANES) {
                both(load(gt + i), load(gate + i), load(up + i), ga, gu);
                store(g_gate + i, ga);
                store(g_up + i, gu);
            }
            if (i < C) {
                float a[3][LANES] = {};
                for (Index j = i; j < C; j++) a[0][j - i] = gt[j], a[1][j - i] = gate[j], a[2][j - i] = up[j];
                both(load(a[0]), load(a[1]), load(a[2]), ga, gu);
                for (Index j = i; j < C; j++) g_gate[j] = ga[j - i], g_up[j] = gu[j - i];
            }
        }
    });
}
}
