// Causal attention of packed segments for training, forward and backward, with norm and rotary positions inside.
//
// A family is a segment without parent and its children. One job does one key head of one family, so the gradients of
// a shared prompt's keys are summed by one thread in order, and no result depends on the number of threads.
#include <algorithm>
#include <vector>

#include "gemm.hpp"
#include "pointwise.hpp"
#include "rows_attention.hpp"
#include "threads.hpp"

namespace ratchet {
namespace {

// What both passes are given. Shapes: qkv (T, width), width = (H + 2G) D; cos_sin (positions, D).
struct Inputs {
    const float *qkv, *q_norm, *k_norm, *cos_sin;
    const Index *position, *start, *parent;
    Index segments, H, G, threads;
    int D;
    float eps;

    Index width() const { return (H + 2 * G) * D; }
    const float* query(Index t, Index h) const { return qkv + t * width() + h * D; }
    const float* key(Index t, Index g) const { return query(t, H + g); }
    const float* value(Index t, Index g) const { return query(t, H + G + g); }
    const float* angles(Index t) const { return cos_sin + position[t] * D; }
};

// Keys and values of one segment for one key head, packed as the panels that the products read.
struct Keys {
    Index first = 0, count = 0, padded = 0;
    float *rows = nullptr, *across = nullptr;                  // keys: panels (padded/PANEL, D, PANEL) of K^T ...
    float *values = nullptr, *values_across = nullptr;         // values: panels (wide/PANEL, count, PANEL) of V ...
    float *g_key = nullptr, *g_value = nullptr;                // (padded, wide) sums of gradients

    static Index floats(Index count, int D, bool backward) {
        const Index padded = round_up(count, PANEL), wide = round_up(D, PANEL);
        return backward ? padded * (2 * D + 4 * wide) : padded * (D + wide);
    }
};

thread_local Scratch parent_memory, own_memory, score_memory, key_memory;

float* take(float*& at, Index count) { return (at += count) - count; }

// Read one segment's keys and values; the backward pass needs both in both orientations, and zeroed sums.
Keys read_keys(const Inputs& in, Index segment, Index g, bool backward, Scratch& memory) {
    const int D = in.D;
    const Index wide = round_up(D, PANEL);
    Keys k;
    k.first = in.start[segment];
    k.count = in.start[segment + 1] - k.first;
    k.padded = round_up(k.count, PANEL);
    float* at = memory.get<float>(Keys::floats(k.count, D, backward));
    k.across = take(at, k.padded * D);
    k.values = take(at, k.padded * wide);
    if (backward) {
        k.values_across = take(at, k.padded * D);
        k.rows = take(at, k.padded * wide);
        k.g_key = take(at, k.padded * wide);
        k.g_value = take(at, k.padded * wide);
        memset(k.g_key, 0, size_t(2 * k.padded * wide) * 4);
    }
    float* rotated = key_memory.get<float>(k.count * D);
    for (Index j = 0; j < k.count; j++)
        norm_and_rotate(in.key(k.first + j, g), in.k_norm, in.angles(k.first + j), in.eps, 1.f, rotated + j * D, D);
    const float* value = in.value(k.first, g);
    for (Index j = 0; j < k.count; j += PANEL) {
        pack_panel(rotated + j * D, 1, D, D, k.count - j, k.across + j * D);
        if (backward) pack_panel(value + j * in.width(), 1, in.width(), D, k.count - j, k.values_across + j * D);
    }
    for (Index d = 0; d < D; d += PANEL) {
        pack_panel(value + d, in.width(), 1, k.count, D - d, k.values + d * k.count);
        if (backward) pack_panel(rotated + d, D, 1, k.count, D - d, k.rows + d * k.count);
    }
    return k;
}

// A block of at most QUERY_ROWS queries of one head, and where its keys lie in a row of scores.
struct Block {
    Index first, rows;    // tokens first .. first + rows - 1
    Index shared, split;  // keys of the parent; column where the segment's own keys begin
    Index own;            // own keys seen by the first query
    Index pitch;          // floats per row of scores

    Index end(Index row) const { return split + own + row; }
};

// out (QUERY_ROWS, pitch) = rows (QUERY_ROWS, D) times keys (or values) of the parent and the segment.
void against_keys(const Block& b, const float* rows, int D, const float* shared, const float* own, float* out) {
    const Index last = b.own + b.rows - 1;
    if (b.shared) product(rows, D, QUERY_ROWS, shared, D, Sink{out, b.pitch, b.split, nullptr, false});
    product(rows, D, QUERY_ROWS, own, D, Sink{out + b.split, b.pitch, round_up(last, PANEL), nullptr, false});
}

// out (QUERY_ROWS, D) = weights (QUERY_ROWS, pitch) times rows of the parent and the segment.
void weighted(const Block& b, const float* weights, int D, const Keys& parent, const float* shared, const Keys& keys,
              const float* own, float* out, Index stride) {
    const Index last = b.own + b.rows - 1;
    for (Index d = 0; d < D; d += PANEL) {
        Sink to{out + d, stride, D - d, nullptr, false};
        if (b.shared) {
            panel_product(weights, b.pitch, QUERY_ROWS, shared + d * parent.count, b.shared, to);
            to.add = true;
        }
        panel_product(weights + b.split, b.pitch, QUERY_ROWS, own + d * keys.count, last, to);
    }
}

// Fill q (QUERY_ROWS, D) with normed, rotated, scaled queries; missing rows are zero.
void read_queries(const Inputs& in, const Block& b, Index h, float* q) {
    const float scale = 1.f / std::sqrt(float(in.D));
    for (Index r = 0; r < QUERY_ROWS; r++) {
        const Index t = b.first + r;
        if (r < b.rows)
            norm_and_rotate(in.query(t, h), in.q_norm, in.angles(t), in.eps, scale, q + r * in.D, in.D);
        else
            memset(q + r * in.D, 0, size_t(in.D) * 4);
    }
}

// Call job(block) for each block of queries of a segment.
template <class Job>
void each_block(const Keys& parent, const Keys& keys, const Job& job) {
    for (Index i = 0; i < keys.count; i += QUERY_ROWS)
        job(Block{keys.first + i, std::min<Index>(QUERY_ROWS, keys.count - i), parent.count, parent.padded, i + 1,
                  parent.padded + keys.padded});
}

// s (rows, keys of a segment) = q (rows, D) times the first `count` keys.
void scores_of(const Keys& keys, Index count, const float* q, Index rows, int D, float* s, Index pitch) {
    in_tiles(rows, [&](auto tile, Index i) {
        for (Index j = 0; j < count; j += PANEL)
            some_scores<float, tile()>(q + i * D, D, keys.across + j * D, PANEL, std::min<Index>(PANEL, count - j),
                                       s + i * pitch + j, pitch);
    });
}

// mixed (rows, D) += p (rows, keys of a segment) times the first `count` values.
void values_of(const Keys& keys, Index count, const float* p, Index pitch, Index rows, int D, float* mixed) {
    in_tiles(rows, [&](auto tile, Index i) {
        for (Index j = 0; j < count; j += CHUNK)
            for (Index d = 0; d < D; d += PANEL)
                some_values<float, tile()>(p + i * pitch + j, pitch, std::min(CHUNK, count - j),
                                           keys.values + d * keys.count + j * PANEL, PANEL,
                                           std::min<Index>(PANEL, D - d), D, mixed + i * D + d);
    });
}

void forward_segment(const Inputs& in, Index g, const Keys& parent, const Keys& keys, float* out, float* lse) {
    const int D = in.D;
    const Index group = in.H / in.G;
    float* scores = score_memory.get<float>(QUERY_ROWS * (parent.padded + keys.padded));
    alignas(64) float q[QUERY_ROWS * 128], mixed[QUERY_ROWS * 128];
    each_block(parent, keys, [&](const Block& b) {
        const Index seen = b.own + b.rows - 1, stop = b.split + round_up(seen, PANEL);
        for (Index h = g * group; h < (g + 1) * group; h++) {
            read_queries(in, b, h, q);
            if (b.shared) scores_of(parent, b.shared, q, b.rows, D, scores, b.pitch);
            scores_of(keys, seen, q, b.rows, D, scores + b.split, b.pitch);
            float inverse[QUERY_ROWS];
            for (Index r = 0; r < b.rows; r++) {
                const Softmax made = exponentials(scores + r * b.pitch, b.shared, b.split, b.own + r, stop);
                inverse[r] = 1.f / made.sum;
                lse[(b.first + r) * in.H + h] = made.most + std::log(made.sum);
            }
            memset(mixed, 0, size_t(b.rows * D) * 4);
            if (b.shared) values_of(parent, b.shared, scores, b.pitch, b.rows, D, mixed);
            values_of(keys, seen, scores + b.split, b.pitch, b.rows, D, mixed);
            for (Index r = 0; r < b.rows; r++)
                for (int d = 0; d < D; d++) out[((b.first + r) * in.H + h) * D + d] = mixed[r * D + d] * inverse[r];
        }
    });
}

// sums (keys, wide) += weights (QUERY_ROWS, keys)^T rows (QUERY_ROWS, D)
template <int ROWS>
void outer_rows(const float* weights, Index pitch, const float* rows, int D, float* sums, Index wide) {
    for (Index d = 0; d < D; d += PANEL) {
        Vec acc[ROWS][TILE_VECS];
        for (int m = 0; m < ROWS; m++)
            for (int v = 0; v < TILE_VECS; v++) acc[m][v] = load(sums + m * wide + d + v * LANES);
        for (int r = 0; r < QUERY_ROWS; r++) {
            Vec x[TILE_VECS];
            for (int v = 0; v < TILE_VECS; v++) x[v] = load(rows + r * wide + d + v * LANES);
            for (int m = 0; m < ROWS; m++)
                for (int v = 0; v < TILE_VECS; v++) acc[m][v] += splat(weights[r * pitch + m]) * x[v];
        }
        for (int m = 0; m < ROWS; m++)
            for (int v = 0; v < TILE_VECS; v++) store(sums + m * wide + d + v * LANES, acc[m][v]);
    }
}

void outer(const float* weights, Index pitch, Index keys, const float* rows, int D, float* sums) {
    const Index wide = round_up(D, PANEL);
    // The sums are padded to whole panels of keys, and the weights of padding are zero.
    for (Index j = 0; j < keys; j += 4) outer_rows<4>(weights + j, pitch, rows, D, sums + j * wide, wide);
}

struct Gradients {
    const float *out, *lse, *g_out;
    float *g_qkv, *g_q_norm, *g_k_norm;  // the norms' are this job's own sums, or null
};

// From scores to probabilities, and from gradients of probabilities to gradients of scores, in place; one row.
void softmax_row_backward(const Block& b, Index row, bool real, float lse, float delta, float* s, float* p) {
    const Index end = real ? b.end(row) : 0, stop = b.split + round_up(b.own + b.rows - 1, PANEL);
    for (Index j = 0; j < stop; j += LANES) {
        Vec e = exp(load(s + j) - lse);
        store(s + j, e);
        store(p + j, e * (load(p + j) - delta));
    }
    const Index hidden = real ? b.shared : 0;
    for (Index j = hidden; j < (real ? b.split : 0); j++) s[j] = p[j] = 0;
    for (Index j = end; j < stop; j++) s[j] = p[j] = 0;
}

void backward_segment(const Inputs& in, Index g, const Keys& parent, const Keys& keys, const Gradients& grad) {
    const int D = in.D;
    const Index group = in.H / in.G, wide = round_up(D, PANEL), pitch = parent.padded + keys.padded;
    const float scale = 1.f / std::sqrt(float(D));
    float* s = score_memory.get<float>(2 * QUERY_ROWS * pitch);
    float* p = s + QUERY_ROWS * pitch;
    alignas(64) float q[QUERY_ROWS * 128] = {}, go[QUERY_ROWS * 128] = {}, gq[QUERY_ROWS * 128];
    alignas(64) float q_wide[QUERY_ROWS * 128] = {}, go_wide[QUERY_ROWS * 128] = {};
    each_block(parent, keys, [&](const Block& b) {
        const Index seen = b.own + b.rows - 1;
        for (Index h = g * group; h < (g + 1) * group; h++) {
            float delta[QUERY_ROWS] = {};
            read_queries(in, b, h, q);
            for (Index r = 0; r < QUERY_ROWS; r++) {
                const Index at = ((b.first + r) * in.H + h) * D;
                for (int d = 0; d < D; d++) {
                    go[r * D + d] = r < b.rows ? grad.g_out[at + d] : 0.f;
                    if (r < b.rows) delta[r] += grad.g_out[at + d] * grad.out[at + d];
                    q_wide[r * wide + d] = q[r * D + d];
                    go_wide[r * wide + d] = go[r * D + d];
                }
            }
            against_keys(b, q, D, parent.across, keys.across, s);
            against_keys(b, go, D, parent.values_across, keys.values_across, p);
            for (Index r = 0; r < QUERY_ROWS; r++) {
                const bool real = r < b.rows;
                const float lse = real ? grad.lse[(b.first + r) * in.H + h] : 0.f;
                softmax_row_backward(b, r, real, lse, delta[r], s + r * pitch, p + r * pitch);
            }
            weighted(b, p, D, parent, parent.rows, keys, keys.rows, gq, D);
            if (b.shared) {
                outer(p, pitch, b.shared, q_wide, D, parent.g_key);
                outer(s, pitch, b.shared, go_wide, D, parent.g_value);
            }
            outer(p + b.split, pitch, seen, q_wide, D, keys.g_key);
            outer(s + b.split, pitch, seen, go_wide, D, keys.g_value);
            for (Index r = 0; r < b.rows; r++) {
                const Index t = b.first + r;
                float* to = grad.g_qkv + t * in.width() + h * D;
                for (int d = 0; d < D; d++) to[d] = gq[r * D + d] * scale;
                norm_and_rotate_backward(to, in.query(t, h), in.q_norm, in.angles(t), in.eps, grad.g_q_norm, D);
            }
        }
    });
}

// Hand a segment's sums of key and value gradients to its tokens.
void write_key_gradients(const Inputs& in, Index g, const Keys& keys, const Gradients& grad) {
    const Index wide = round_up(in.D, PANEL);
    for (Index j = 0; j < keys.count; j++) {
        const Index t = keys.first + j;
        float* to = grad.g_qkv + t * in.width() + (in.H + g) * in.D;
        memcpy(to, keys.g_key + j * wide, size_t(in.D) * 4);
        norm_and_rotate_backward(to, in.key(t, g), in.k_norm, in.angles(t), in.eps, grad.g_k_norm, in.D);
        memcpy(to + in.G * in.D, keys.g_value + j * wide, size_t(in.D) * 4);
    }
}

// The families of a layout, as lists of segments, the parent first.
std::vector<std::vector<Index>> families_of(const Inputs& in) {
    std::vector<std::vector<Index>> families;
    std::vector<Index> family(size_t(in.segments));
    for (Index s = 0; s < in.segments; s++) {
        if (in.parent[s] < 0) {
            family[size_t(s)] = Index(families.size());
            families.push_back({s});
        } else {
            families[size_t(family[size_t(in.parent[s])])].push_back(s);
        }
    }
    return families;
}

// Call work(keys of parent or none, keys of segment) for a family's segments, then done(keys) when sums are final.
template <class Work, class Done>
void each_segment(const Inputs& in, const std::vector<Index>& family, Index g, bool backward, const Work& work,
                  const Done& done) {
    const Keys none, parent = read_keys(in, family[0], g, backward, parent_memory);
    work(none, parent);
    for (size_t i = 1; i < family.size(); i++) {
        const Keys keys = read_keys(in, family[i], g, backward, own_memory);
        work(parent, keys);
        done(keys);
    }
    done(parent);
}

}  // namespace
}  // namespace ratchet

using namespace ratchet;

extern "C" {

// out (T, H D), lse (T, H). q_norm and k_norm may be null. D is a multiple of 16, at most 128.
void ratchet_attention(const float* qkv, const float* q_norm, const float* k_norm, const float* cos_sin,
                       const Index* position, const Index* start, const Index* parent, Index segments, Index H,
                       Index G, Index D, float eps, float* out, float* lse, Index threads) {
    const Inputs in{qkv, q_norm, k_norm, cos_sin, position, start, parent, segments, H, G, threads, int(D), eps};
    const auto families = families_of(in);
    parallel(Index(families.size()) * G, threads, [&](Index job) {
        each_segment(
            in, families[size_t(job / G)], job % G, false,
            [&](const Keys& p, const Keys& k) { forward_segment(in, job % G, p, k, out, lse); }, [](const Keys&) {});
    });
}

// g_qkv (T, width); g_norms (2, D): gradients of q_norm and k_norm, where those are given.
void ratchet_attention_grad(const float* qkv, const float* q_norm, const float* k_norm, const float* cos_sin,
                            const Index* position, const Index* start, const Index* parent, Index segments, Index H,
                            Index G, Index D, float eps, const float* out, const float* lse, const float* g_out,
                            float* g_qkv, float* g_norms, Index threads) {
    const Inputs in{qkv, q_norm, k_norm, cos_sin, position, start, parent, segments, H, G, threads, int(D), eps};
    const auto families = families_of(in);
    const Index jobs = Index(families.size()) * G;
    std::vector<float> sums(size_t(jobs * 2 * D), 0.f);
    parallel(jobs, threads, [&](Index job) {
        float* mine = sums.data() + job * 2 * D;
        const Gradients grad{out, lse, g_out, g_qkv, mine, mine + D};
        each_segment(
            in, families[size_t(job / G)], job % G, true,
            [&](const Keys& p, const Keys& k) { backward_segment(in, job % G, p, k, grad); },
            [&](const Keys& k) { write_key_gradients(in, job % G, k, grad); });
    });
    memset(g_norms, 0, size_t(2 * D) * 4);
    for (Index job = 0; job < jobs; job++)
        for (Index i = 0; i < 2 * D; i++) g_norms[i] += sums[size_t(job * 2 * D + i)];
}
}
