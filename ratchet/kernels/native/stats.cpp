// Log-probability, entropy and KL of predicted tokens, from hidden states, without keeping the logits.
//
// With z = logits / temperature, p = softmax(z), l = log p, H = -sum p l, D = sum p (l - l_ref):
// d l[y]/dz = onehot(y) - p;   dH/dz = -p (l + H);   dD/dz = p ((l - l_ref) - D).
// Shapes: rows (N, V) of logits, made by the caller's matrix product, a chunk at a time.
#include "threads.hpp"

namespace ratchet {
namespace {

// Turn a row of logits into log-probabilities in place.
void log_softmax_row(float* z, Index V, float inverse_temperature) {
    Vec top = splat(-3e38f);
    Index i = 0;
    float most = -3e38f;
    for (; i + LANES <= V; i += LANES) {
        Vec x = load(z + i) * inverse_temperature;
        store(z + i, x);
        top = larger(top, x);
    }
    for (; i < V; i++) {
        z[i] *= inverse_temperature;
        most = z[i] > most ? z[i] : most;
    }
    const float peak = largest(top);
    most = peak > most ? peak : most;
    Vec total = {};
    float rest[LANES];
    store(rest, splat(-1e30f));
    for (i = 0; i + LANES <= V; i += LANES) total += exp(load(z + i) - most);
    for (Index j = i; j < V; j++) rest[j - i] = z[j] - most;
    if (i < V) total += exp(load(rest));
    const float lse = most + std::log(sum(total));
    for (i = 0; i + LANES <= V; i += LANES) store(z + i, load(z + i) - lse);
    for (; i < V; i++) z[i] -= lse;
}

// Apply f(log p) -> weight to every entry and return the sum of p * weight.
template <class F>
float expectation(const float* l, Index V, const F& f) {
    Vec total = {};
    Index i = 0;
    for (; i + LANES <= V; i += LANES) total += exp(load(l + i)) * f(load(l + i), i);
    if (i < V) {
        float tail[LANES];
        store(tail, splat(-1e30f));  // probability 0
        for (Index j = i; j < V; j++) tail[j - i] = l[j];
        Vec x = load(tail), p = exp(x);
        // Entries past the end have p = 0; f sees 0 there, not -1e30, so that 0 * f is 0.
        Vec safe = x < splat(-1e29f) ? Vec{} : x;
        total += p * f(safe, i);
    }
    return sum(total);
}

Vec load_up_to(const float* p, Index i, Index V) {
    if (i + LANES <= V) return load(p + i);
    float tail[LANES] = {};
    for (Index j = i; j < V; j++) tail[j - i] = p[j];
    return load(tail);
}

}  // namespace
}  // namespace ratchet

using namespace ratchet;

extern "C" {

// logits (N, V) become log-probabilities; ref likewise, or null. kl is written only with ref.
void ratchet_stats(float* logits, float* ref, const Index* target, float temperature, float* logprob, float* entropy,
                   float* kl, Index N, Index V, Index threads) {
    parallel(N, threads, [&](Index n) {
        float* l = logits + n * V;
        log_softmax_row(l, V, 1.f / temperature);
        logprob[n] = l[target[n]];
        entropy[n] = -expectation(l, V, [](Vec x, Index) { return x; });
        if (!ref) return;
        float* r = ref + n * V;
        log_softmax_row(r, V, 1.f / temperature);
        kl[n] = expectation(l, V, [&](Vec x, Index i) { return x - load_up_to(r, i, V); });
    });
}

// logits (N, V) become gradients with respect to the undivided logits. g_* (N,) may be null; so may ref.
void ratchet_stats_grad(float* logits, float* ref, const Index* target, float temperature, const float* g_logprob,
                        const float* g_entropy, const float* g_kl, Index N, Index V, Index threads) {
    parallel(N, threads, [&](Index n) {
        float *l = logits + n * V, *r = ref ? ref + n * V : nullptr;
        const float scale = 1.f / temperature;
        log_softmax_row(l, V, scale);
        const float gl = g_logprob ? g_logprob[n] * scale : 0.f, ge = g_entropy ? g_entropy[n] * scale : 0.f;
        const float gk = g_kl && r ? g_kl[n] * scale : 0.f;
        float h = 0, d = 0;
        if (ge != 0) h = -expectation(l, V, [](Vec x, Index) { return x; });
        if (gk != 0) {
            log_softmax_row(r, V, scale);
            d = expectation(l, V, [&](Vec x, Index i) { return x - load_up_to(r, i, V); });
        }
        auto slope = [&](Vec x, Index i) {
            Vec g = splat(-gl);
            if (ge != 0) g -= (x + h) * ge;
            if (gk != 0) g += (x - load_up_to(r, i, V) - d) * gk;
            return exp(x) * g;
        };
        Index i = 0;
        for (; i + LANES <= V; i += LANES) store(l + i, slope(load(l + i), i));
        if (i < V) {
            Vec g = slope(load_up_to(l, i, V), i);
            for (Index j = i; j < V; j++) l[j] = g[j - i];
        }
        l[target[n]] += gl;
    });
}
}
