// Matrix products of the training pass: y = x w^T + b, and its gradients. Shapes: x (T, K), w (N, K), y (T, N).
#include "gemm.hpp"
#include "threads.hpp"

namespace ratchet {

Runtime runtime = nullptr;

namespace {

constexpr Index ROW_BLOCK = 8 * TILE_ROWS;

thread_local Scratch packed_weight, packed_left, packed_right, converted;

template <class E>
struct Packed {
    E* data;
    Index steps;
};

// Pack the (inner, columns) matrix b[k * down + n * across] into panels.
template <class E>
Packed<E> pack(const float* b, Index down, Index across, Index inner, Index columns, Scratch& into, Index threads) {
    const Index steps = steps_of(inner, STEP<E>), panels = (columns + PANEL - 1) / PANEL;
    E* data = into.get<E>(panels * steps * PANEL);
    parallel(panels, panels * steps * PANEL > 16384 ? threads : 1, [&](Index p) {
        pack_panel(b + p * PANEL * across, down, across, inner, columns - p * PANEL, data + p * steps * PANEL);
    });
    return {data, steps};
}

// c (rows, columns) = a (rows, inner) times packed panels.
template <class E>
void rows_times_panels(const float* a, Index rows, Index inner, Packed<E> b, const float* bias, float* c,
                       Index columns, Index threads) {
    parallel((rows + ROW_BLOCK - 1) / ROW_BLOCK, threads, [&](Index block) {
        const Index first = block * ROW_BLOCK, count = rows - first < ROW_BLOCK ? rows - first : ROW_BLOCK;
        E* copy = STEP<E> == 1 && sizeof(E) == 4 && !std::is_same<E, Pair>::value
                      ? nullptr
                      : converted.get<E>(ROW_BLOCK * b.steps);
        const E* from = rows_of(a + first * inner, count, inner, copy);
        product(from, b.steps, count, b.data, b.steps, Sink{c + first * columns, columns, columns, bias, false});
    });
}

// Columns of a (T, width) matrix in groups of `group`, each group contiguous over T: (groups, steps, group).
template <class E, int GROUP>
E* pack_columns(const float* a, Index rows, Index width, Scratch& into, Index threads) {
    const Index steps = steps_of(rows, STEP<E>), groups = (width + GROUP - 1) / GROUP, whole = width / GROUP;
    E* data = into.get<E>(groups * steps * GROUP);
    // Few rows at a time, so that they are still in the first-level cache when the last group is copied from them.
    const Index block = 8;
    parallel((steps + block - 1) / block, threads, [&](Index b) {
        const Index from = b * block, to = steps < from + block ? steps : from + block;
        auto next = [&](const float* row, Index k) { return STEP<E> == 2 && 2 * k + 1 < rows ? row + width : nullptr; };
        for (Index g = 0; g < whole; g++)
            for (Index k = from; k < to; k++) {
                const float* row = a + k * STEP<E> * width + g * GROUP;
                copy_step<GROUP>(row, next(row, k), data + (g * steps + k) * GROUP);
            }
        if (whole == groups) return;
        const size_t left = size_t(width - whole * GROUP) * 4;
        for (Index k = from; k < to; k++) {
            const float *row = a + k * STEP<E> * width + whole * GROUP, *after = next(row, k);
            float edge[2][GROUP] = {};
            memcpy(edge[0], row, left);
            if (after) memcpy(edge[1], after, left);
            copy_step<GROUP>(edge[0], edge[1], data + (whole * steps + k) * GROUP);
        }
    });
    return data;
}

// gw[n][k] tile over tokens t0 .. t1 of packed g and x, added to what earlier tokens left there.
template <class E>
__attribute__((noinline)) void outer_tile(const E* left, const E* right, Index steps, float* c, Index stride,
                                          Index real_rows, Index real_columns, bool first) {
    Vec acc[TILE_ROWS][TILE_VECS] = {};
    float edge[TILE_ROWS * PANEL];
    const bool whole = real_rows >= TILE_ROWS && real_columns >= PANEL;
    const Index rows = real_rows < TILE_ROWS ? real_rows : TILE_ROWS;
    const Index columns = real_columns < PANEL ? real_columns : PANEL;
    float* at = whole ? c : edge;
    const Index pitch = whole ? stride : PANEL;
    if (!first) {
        if (!whole)
            for (Index m = 0; m < rows; m++) memcpy(edge + m * PANEL, c + m * stride, size_t(columns) * 4);
        for (Index m = 0; m < rows; m++)
            for (int v = 0; v < TILE_VECS; v++) acc[m][v] = load(at + m * pitch + v * LANES);
    }
    tile<TILE_ROWS>(left, std::integral_constant<Index, 1>(), std::integral_constant<Index, TILE_ROWS>(), right, steps,
                    acc);
    for (Index m = 0; m < rows; m++)
        for (int v = 0; v < TILE_VECS; v++) store(at + m * pitch + v * LANES, acc[m][v]);
    if (!whole)
        for (Index m = 0; m < rows; m++) memcpy(c + m * stride, edge + m * PANEL, size_t(columns) * 4);
}

// gw (N, K) = (or +=) g^T x, summed over tokens in order.
template <class E>
void weight_gradient(const float* g, const float* x, Index tokens, Index N, Index K, float* gw, bool add,
                     Index threads) {
    const Index steps = steps_of(tokens, STEP<E>);
    const E* left = pack_columns<E, TILE_ROWS>(g, tokens, N, packed_left, threads);
    const E* right = pack_columns<E, PANEL>(x, tokens, K, packed_right, threads);
    const Index tiles = (N + TILE_ROWS - 1) / TILE_ROWS, panels = (K + PANEL - 1) / PANEL;
    // A block of tokens of the right operand should stay in the second-level cache while all tiles pass over it.
    Index block = (512 * 1024) / (panels * PANEL * Index(sizeof(E)));
    block = block < 64 ? 64 : block > 1024 ? 1024 : block;
    const Index groups = threads <= 1 ? 1 : (tiles < 8 * threads ? tiles : 8 * threads);
    parallel(groups, threads, [&](Index group) {
        const Index from = tiles * group / groups, to = tiles * (group + 1) / groups;
        for (Index k0 = 0; k0 < steps; k0 += block) {
            const Index count = steps - k0 < block ? steps - k0 : block;
            for (Index m = from; m < to; m++)
                for (Index p = 0; p < panels; p++)
                    outer_tile(left + (m * steps + k0) * TILE_ROWS, right + (p * steps + k0) * PANEL, count,
                               gw + m * TILE_ROWS * K + p * PANEL, K, N - m * TILE_ROWS, K - p * PANEL,
                               !add && k0 == 0);
        }
    });
}

template <class E>
void forward(const float* x, const float* w, const float* b, float* y, Index T, Index K, Index N, Index threads) {
    rows_times_panels(x, T, K, pack<E>(w, 1, K, K, N, packed_weight, threads), b, y, N, threads);
}

template <class E>
void input_gradient(const float* g, const float* w, float* gx, Index T, Index K, Index N, Index threads) {
    rows_times_panels(g, T, N, pack<E>(w, K, 1, N, K, packed_weight, threads), nullptr, gx, K, threads);
}

}  // namespace
}  // namespace ratchet

using namespace ratchet;

extern "C" {

void ratchet_set_runtime(void* entry) { runtime = reinterpret_cast<Runtime>(entry); }

// y (T, N) = x (T, K) w (N, K)^T + b; b may be null.
void ratchet_linear(const float* x, const float* w, const float* b, float* y, Index T, Index K, Index N, Index bf16,
                    Index threads) {
    bf16 ? forward<Pair>(x, w, b, y, T, K, N, threads) : forward<float>(x, w, b, y, T, K, N, threads);
}

// gx (T, K) = g (T, N) w (N, K)
void ratchet_linear_input_grad(const float* g, const float* w, float* gx, Index T, Index K, Index N, Index bf16,
                               Index threads) {
    bf16 ? input_gradient<Pair>(g, w, gx, T, K, N, threads) : input_gradient<float>(g, w, gx, T, K, N, threads);
}

// gw (N, K) = g^T x, or added to gw.
void ratchet_linear_weight_grad(const float* g, const float* x, float* gw, Index T, Index K, Index N, Index add,
                                Index bf16, Index threads) {
    bf16 ? weight_gradient<Pair>(g, x, T, N, K, gw, add, threads)
         : weight_gradient<float>(g, x, T, N, K, gw, add, threads);
}
}
