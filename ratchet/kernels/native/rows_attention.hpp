// Scores, probabilities and weighted sums of a few queries: what decoding and training share, so that both add up in
// the same order and a log-probability computed while sampling is the trainer's, bit for bit.
//
// The order for one query: each score is two chains of products, over even and odd channels; the sum of exponentials
// runs by lanes over the prefix and then the query's own keys; the weighted sum of values takes CHUNK keys at a time,
// even and odd ones in two chains. Nothing depends on the queries beside it or on how memory is laid out.
#pragma once
#include <algorithm>
#include <type_traits>

#include "simd.hpp"

namespace ratchet {

constexpr Index CHUNK = 32;  // keys that a weighted sum takes before its two chains are joined
#if defined(__AVX512F__) || !defined(__AVX2__)
constexpr Index QUERY_TILE = 4;
#else
constexpr Index QUERY_TILE = 2;  // 16 registers hold no more
#endif

template <class E, int M, int VECS>
static inline void scores_of_vectors(const float* q, int D, const E* keys, Index width, float* s, Index pitch) {
    Vec acc[M][VECS][2] = {};  // two chains each, so that the latency of an addition is hidden
    for (int d = 0; d < D; d += 2)
        for (int even = 0; even < 2; even++)
            for (int v = 0; v < VECS; v++) {
                const Vec k = load(keys + (d + even) * width + v * LANES);
                for (int m = 0; m < M; m++) acc[m][v][even] += splat(q[m * D + d + even]) * k;
            }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECS; v++) store(s + m * pitch + v * LANES, acc[m][v][0] + acc[m][v][1]);
}

// s (M, count) = q (M, D) times `count` <= width keys, kept as (D, width); entries up to the next multiple of LANES are
// written too.
template <class E, int M>
static inline void some_scores(const float* q, int D, const E* keys, Index width, Index count, float* s, Index pitch) {
    Index j = 0;
    for (; j + LANES < count; j += 2 * LANES) scores_of_vectors<E, M, 2>(q, D, keys + j, width, s + j, pitch);
    if (j < count) scores_of_vectors<E, M, 1>(q, D, keys + j, width, s + j, pitch);
}

template <class E, int M, int VECS>
static inline void values_of_vectors(const float* p, Index pitch, Index count, const E* values, Index stride, int D,
                                     float* out) {
    Vec acc[M][VECS][2] = {};
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECS; v++) acc[m][v][0] = load(out + m * D + v * LANES);
    Index j = 0;
    for (; j + 1 < count; j += 2)
        for (int even = 0; even < 2; even++)
            for (int v = 0; v < VECS; v++) {
                const Vec x = load(values + (j + even) * stride + v * LANES);
                for (int m = 0; m < M; m++) acc[m][v][even] += splat(p[m * pitch + j + even]) * x;
            }
    if (j < count)
        for (int v = 0; v < VECS; v++) {
            const Vec x = load(values + j * stride + v * LANES);
            for (int m = 0; m < M; m++) acc[m][v][0] += splat(p[m * pitch + j]) * x;
        }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < VECS; v++) store(out + m * D + v * LANES, acc[m][v][0] + acc[m][v][1]);
}

// out (M, D), of which `columns` are written, += p (M, count) times `count` <= CHUNK rows of values.
template <class E, int M>
static inline void some_values(const float* p, Index pitch, Index count, const E* values, Index stride, Index columns,
                               int D, float* out) {
    Index d = 0;
    for (; d + LANES < columns; d += 2 * LANES)
        values_of_vectors<E, M, 2>(p, pitch, count, values + d, stride, D, out + d);
    if (d < columns) values_of_vectors<E, M, 1>(p, pitch, count, values + d, stride, D, out + d);
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

// The largest score of a row and the sum of exponentials above it.
struct Softmax {
    float most, sum;
};

// Exponentials of scores in [0, shared) and [split, split + own); 0 between and up to `stop`.
static inline Softmax exponentials(float* s, Index shared, Index split, Index own, Index stop) {
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
    return {most, sum(total)};
}

}  // namespace ratchet
