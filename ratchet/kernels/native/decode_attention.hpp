// Attention of a few queries over the pages of a cache. Queries that share a prompt read its pages together.
//
// The order of additions for a query depends only on its own prefix and place, so results do not depend on what else
// is in the batch.
#pragma once
#include <algorithm>

#include "cache.hpp"
#include "pointwise.hpp"
#include "rows_attention.hpp"
#include "threads.hpp"

namespace ratchet {

constexpr Index TOGETHER = 8;  // queries per unit of work
static_assert(PAGE == CHUNK, "a page is what a weighted sum takes at a time");

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

template <class E>
static void sequence_scores(const Sequence& seq, Index offset, Index count, const float* q, Index n, int D, float* s,
                            Index pitch) {
    in_tiles(n, [&](auto tile, Index i) {
        for (Index j = 0; j < count; j += PAGE)
            some_scores<E, tile()>(q + i * D, D, static_cast<const E*>(seq.pages[size_t(j / PAGE)]) + offset, PAGE,
                                   std::min(PAGE, count - j), s + i * pitch + j, pitch);
    });
}

template <class E>
static void sequence_values(const Sequence& seq, Index offset, Index count, const float* p, Index n, int D,
                            Index pitch, float* out) {
    in_tiles(n, [&](auto tile, Index i) {
        for (Index j = 0; j < count; j += PAGE)
            some_values<E, tile()>(p + i * pitch + j, pitch, std::min(PAGE, count - j),
                                   static_cast<const E*>(seq.pages[size_t(j / PAGE)]) + offset + D * PAGE, D, D, D,
                                   out + i * D);
    });
}

// Put the key (normed and rotated) and the value of one token and one key head into its page.
template <class E>
static void remember(const HeadShape& shape, const float* k_norm, Index layer, Index g, const Query& query,
                     const float* qkv) {
    const int D = shape.D;
    alignas(64) float key[128];
    const Index slot = query.place % PAGE;
    const float *k = qkv + (shape.H + g) * D, *v = k + shape.G * D;
    E* keys = static_cast<E*>(query.own->pages[size_t(query.place / PAGE)]) + shape.offset(layer, g);
    norm_and_rotate(k, k_norm, shape.cos_sin + query.position * D, shape.eps, 1.f, key, D);
    for (int d = 0; d < D; d++) put(keys + d * PAGE + slot, key[d]);
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
            inverse[i] = 1.f / exponentials(s + i * pitch, shared, split, seen, split + round_up(seen, LANES)).sum;
            for (Index j = split + round_up(seen, LANES); j < pitch; j++) s[i * pitch + j] = 0;
        }
        memset(mixed, 0, size_t(all * D) * 4);
        if (shared) sequence_values<E>(*prefix, offset, shared, s, all, D, pitch, mixed);
        each_run([&](Index first, Index count, const Sequence& own, Index seen) {
            sequence_values<E>(own, offset, seen, s + first * pitch + split, count, D, pitch, mixed + first * D);
        });
        for (Index i = 0; i < all; i++)
            for (int d = 0; d < D; d++)
                out[((i / R) * shape.H + g * R + i % R) * D + d] = mixed[i * D + d] * inverse[i];
    }
}

}  // namespace ratchet
