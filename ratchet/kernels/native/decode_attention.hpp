// Attention of a few queries over the pages of a cache. Queries that share a prompt read its pages together.
//
// The order of additions for a query depends only on its own prefix and place, so results do not depend on what else
// is in the batch.
#pragma once
#include <algorithm>

#include "cache.hpp"
#include "pointwise.hpp"
#include "threads.hpp"

namespace ratchet {

constexpr Index TOGETHER = 8;  // queries per unit of work
#if defined(__AVX512F__) || !defined(__AVX2__)
constexpr Index QUERY_TILE = 4;
#else
constexpr Index QUERY_TILE = 2;  // 16 registers hold no more
#endif

// The numbers of the model that attention needs.
struct HeadShape {
    Index H, G;
    int D;
    float eps;
    const float* cos_sin;  // (positions, D)

    Index width() const { return (H + 2 * G) * D; }
    Index group() const { return H / G; }
    Index page_numbers(Index layers) const { return layers * G * 2 * D * PAGE; }
    // First number of keys of a head within a page; values follow D * PAGE later.
    Index offset(Index layer, Index g) const { return (layer * G + g) * 2 * D * PAGE; }
};

template <class E, int M, int VECS>
static inline void scores_of_vectors(const float* q, int D, const E* keys, float* s, Index pitch) {
    Vec acc[M][VECS][2] = {};  // two chains each, so that the latency of an addition is hidden
    for (int d = 0; d < D; d += 2)
        for (int even = 0; even < 2; even++)
            for (int v = 0; v < VECS; v++) {
                const Vec k = load(keys + (d + even) * PAGE + v * LANES);
                for (int m = 0; m < M; m++) acc[m][v][even] += splat(q[m * D + d + even]) * k;
            }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECS; v++) store(s + m * pitch + v * LANES, acc[m][v][0] + acc[m][v][1]);
}

// s (M, count) = q (M, D) times one page of keys; entries up to the next multiple of LANES are written too.
template <class E, int M>
static inline void page_scores(const float* q, int D, const E* keys, Index count, float* s, Index pitch) {
    Index j = 0;
    for (; j + LANES < count; j += 2 * LANES) scores_of_vectors<E, M, 2>(q, D, keys + j, s + j, pitch);
    if (j < count) scores_of_vectors<E, M, 1>(q, D, keys + j, s + j, pitch);
}

template <class E, int M, int VECS>
static inline void values_of_vectors(const float* p, Index pitch, Index count, const E* values, int D, float* out) {
    Vec acc[M][VECS][2] = {};
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECS; v++) acc[m][v][0] = load(out + m * D + v * LANES);
    Index j = 0;
    for (; j + 1 < count; j += 2)
        for (int even = 0; even < 2; even++)
            for (int v = 0; v < VECS; v++) {
                const Vec x = load(values + (j + even) * D + v * LANES);
                for (int m = 0; m < M; m++) acc[m][v][even] += splat(p[m * pitch + j + even]) * x;
            }
    if (j < count)
        for (int v = 0; v < VECS; v++) {
            const Vec x = load(values + j * D + v * LANES);
            for (int m = 0; m < M; m++) acc[m][v][0] += splat(p[m * pitch + j]) * x;
        }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECS; v++) store(out + m * D + v * LANES, acc[m][v][0] + acc[m][v][1]);
}

// out (M, D) += p (M, count) times one page of values.
template <class E, int M>
static inline void page_values(const float* p, Index pitch, Index count, const E* values, int D, float* out) {
    int d = 0;
    for (; d + LANES < D; d += 2 * LANES) values_of_vectors<E, M, 2>(p, pitch, count, values + d, D, out + d);
    if (d < D) values_of_vectors<E, M, 1>(p, pitch, count, values + d, D, out + d);
}

// Call work<M>(first) for tiles of 4, 2 and 1 of n queries.
template <class Work>
static inline void in_tiles(Index n, const Work& work) {
    Index i = 0;
    if (QUERY_TILE == 4)
        for (; i + 4 <= n; i += 4) work(std::integral_constant<int, 4>(), i);
    for (; i + 2 <= n; i += 2) work(std::integral_constant<int, 2>(), i);
    if (i < n) work(std::integral_constant<int, 1>(), i);
}

template <class E>
static void sequence_scores(const Sequence& seq, Index offset, Index count, const float* q, Index n, int D, float* s,
                            Index pitch) {
    in_tiles(n, [&](auto tile, Index i) {
        for (Index j = 0; j < count; j += PAGE)
            page_scores<E, tile()>(q + i * D, D, static_cast<const E*>(seq.pages[size_t(j / PAGE)]) + offset,
                                   std::min(PAGE, count - j), s + i * pitch + j, pitch);
    });
}

template <class E>
static void sequence_values(const Sequence& seq, Index offset, Index count, const float* p, Index n, int D,
                            Index pitch, float* out) {
    in_tiles(n, [&](auto tile, Index i) {
        for (Index j = 0; j < count; j += PAGE)
            page_values<E, tile()>(p + i * pitch + j, pitch, std::min(PAGE, count - j),
                                   static_cast<const E*>(seq.pages[size_t(j / PAGE)]) + offset + D * PAGE, D,
                                   out + i * D);
    });
}

// Exponentials of scores in [0, shared) and [split, split + own); 0 between and up to `stop`. Returns 1 / their sum.
static inline float exponentials(float* s, Index shared, Index split, Index own, Index stop) {
    for (Index j = shared; j < split; j++) s[j] = -1e30f;
    for (Index j = split + own; j < stop; j++) s[j] = -1e30f;
    Vec top = splat(-1e30f);
    for (Index j = 0; j < stop; j += LANES) top = larger(top, load(s + j));
    const float most = largest(top);
    Vec total = {};
    for (Index j = 0; j < stop; j += LANES) {
        const Vec e = exp(load(s + j) - most);
        store(s + j, e);
        total += e;
    }
    return 1.f / sum(total);
}

// Put the key (normed and rotated) and value of one token and key head into its page.
template <class E>
static inline void remember(const HeadShape& shape, const float* k_norm, Index layer, Index g, const Query& query,
                            const float* qkv) {
    const int D = shape.D;
    alignas(64) float key[128];
    alignas(64) E small[128];
    const Index slot = query.place % PAGE;
    const float *k = qkv + (shape.H + g) * D, *v = k + shape.G * D;
    E* keys = static_cast<E*>(query.own->pages[size_t(query.place / PAGE)]) + shape.offset(layer, g);
    norm_and_rotate(k, k_norm, shape.cos_sin + query.position * D, shape.eps, 1.f, key, D);
    for (int d = 0; d < D; d += LANES) store(small + d, load(key + d));
    for (int d = 0; d < D; d++) keys[d * PAGE + slot] = small[d];
    E* values = keys + D * PAGE + slot * D;
    for (int d = 0; d < D; d += LANES) store(values + d, load(v + d));
}

// Attention of `n` <= TOGETHER queries with one prefix, one layer. Their rows of qkv (n, width) are the raw projection;
// their keys and values are first put into the cache. out (n, H D).
template <class E>
static void attend(const HeadShape& shape, const float* q_norm, const float* k_norm, Index layer, const Query* queries,
                   Index n, const float* qkv, float* out, Scratch& scratch) {
    const int D = shape.D;
    const Index R = shape.group(), all = n * R;
    const Sequence* prefix = queries[0].prefix;
    const Index shared = prefix ? prefix->length : 0, split = round_up(shared, PAGE);
    Index most = 0;
    for (Index i = 0; i < n; i++) most = std::max(most, queries[i].seen());
    const Index pitch = split + round_up(most, PAGE);
    float* q = scratch.get<float>(all * (2 * D + pitch + 1));
    float *mixed = q + all * D, *s = mixed + all * D, *inverse = s + all * pitch;
    const float scale = 1.f / std::sqrt(float(D));
    for (Index g = 0; g < shape.G; g++) {
        const Index offset = shape.offset(layer, g);
        for (Index i = 0; i < all; i++)
            norm_and_rotate(qkv + (i / R) * shape.width() + (g * R + i % R) * D, q_norm,
                            shape.cos_sin + queries[i / R].position * D, shape.eps, scale, q + i * D, D);
        // Head by head, so that the lines of a page are fetched once for writing and reading.
        for (Index i = 0; i < n; i++) remember<E>(shape, k_norm, layer, g, queries[i], qkv + i * shape.width());
        if (shared) sequence_scores<E>(*prefix, offset, shared, q, all, D, s, pitch);
        // Neighbouring queries of one sequence (a prompt being read) share its pages too.
        auto each_run = [&](auto&& job) {
            for (Index a = 0, b; a < n; a = b) {
                for (b = a + 1; b < n && queries[b].own == queries[a].own; b++) {}
                job(a * R, (b - a) * R, *queries[a].own, queries[b - 1].seen());
            }
        };
        each_run([&](Index first, Index count, const Sequence& own, Index seen) {
            sequence_scores<E>(own, offset, seen, q + first * D, count, D, s + first * pitch + split, pitch);
        });
        for (Index i = 0; i < all; i++) {
            const Index seen = queries[i / R].seen();
            inverse[i] = exponentials(s + i * pitch, shared, split, seen, split + round_up(seen, LANES));
            for (Index j = split + round_up(seen, LANES); j < pitch; j++) s[i * pitch + j] = 0;
        }
        memset(mixed, 0, size_t(all * D) * 4);
        if (shared) sequence_values<E>(*prefix, offset, shared, s, all, D, pitch, mixed);
        each_run([&](Index first, Index count, const Sequence& own, Index seen) {
            sequence_values<E>(own, offset, seen, s + first * pitch + split, count, D, pitch, mixed + first * D);
        });
        for (Index i = 0; i < all; i++)
            for (int d = 0; d < D; d++) out[((i / R) * shape.H + g * R + i % R) * D + d] = mixed[i * D + d] * inverse[i];
    }
}

}  // namespace ratchet
