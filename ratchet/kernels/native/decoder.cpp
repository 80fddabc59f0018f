// A decoder that generates: packed weights, a paged cache, and whole forward steps in one call.
//
// A thread takes a block of tokens through all layers by itself, so threads meet only at the end of a step.
#include <algorithm>
#include <stdexcept>

#include "decode_attention.hpp"
#include "gemm.hpp"

namespace ratchet {
namespace {

// Most rows of one thread at a time, so that activations stay in the second-level cache.
constexpr Index STEP_ROWS = 128;
constexpr Index PREFILL_ROWS = 256;

struct Dimensions {
    Index vocab, hidden, layers, H, G, D, intermediate, positions, qk_norm, qkv_bias;
};

// Which weight `load` is given; the numbers are the loader's too.
enum Slot { EMBEDDING, HEAD, FINAL_NORM, ATTN_NORM, QKV, QKV_BIAS, Q_NORM, K_NORM, OUT, MLP_NORM, GATE_UP, DOWN };

template <class E>
struct Matrix {
    std::vector<E> panels;
    Index inner = 0, columns = 0;

    Index steps() const { return steps_of(inner, STEP<E>); }

    // w (columns, inner), as torch keeps it.
    void pack(const float* w, Index out, Index in, Index threads) {
        inner = in, columns = out;
        const Index count = (out + PANEL - 1) / PANEL;
        panels.resize(size_t(count * steps() * PANEL));
        parallel(count, threads, [&](Index p) {
            pack_panel(w + p * PANEL * in, 1, in, in, out - p * PANEL, panels.data() + p * steps() * PANEL);
        });
    }
};

template <class E>
struct Layer {
    Matrix<E> qkv, out, gate_up, down;
    std::vector<float> attn_norm, mlp_norm, q_norm, k_norm, bias;
};

const float* or_null(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

// Rows of the cache, without their arithmetic.
struct Prompt {
    Sequence cache;
    Index users = 0;
};

struct Row {
    Prompt* prompt;
    Sequence cache;

    Index length() const { return prompt->cache.length + cache.length; }
};

class Decoder {
public:
    virtual ~Decoder() = default;
    virtual void load(Slot slot, Index layer, const float* w, Index threads) = 0;
    virtual Index prefill(const Index* tokens, const Index* start, Index prompts, const Index* copies, Index* rows,
                          float* logits, Index threads) = 0;
    virtual Index step(const Index* rows, const Index* tokens, Index count, float* logits, Index threads) = 0;
    virtual Index release(const Index* rows, Index count) = 0;
    virtual void trim() = 0;
};

thread_local Scratch activations, attention_memory, elements;

// E: elements of weight panels; C: numbers of the cache.
template <class E, class C>
class DecoderOf final : public Decoder {
public:
    DecoderOf(const Dimensions& d, float eps, const float* cos_sin)
        : d_(d), angles_(cos_sin, cos_sin + d.positions * d.D),
          shape_{d.H, d.G, int(d.D), eps, angles_.data()},
          pool_(size_t(shape_.page_numbers(d.layers)) * sizeof(C)), layers_(size_t(d.layers)) {}

    void load(Slot slot, Index layer, const float* w, Index threads) override {
        const Index hidden = d_.hidden;
        if (slot == EMBEDDING) return void(embedding_.assign(w, w + d_.vocab * hidden));
        if (slot == HEAD) return head_.pack(w, d_.vocab, hidden, threads);
        if (slot == FINAL_NORM) return void(final_norm_.assign(w, w + hidden));
        Layer<E>& l = layers_[size_t(layer)];
        switch (slot) {
            case ATTN_NORM: return void(l.attn_norm.assign(w, w + hidden));
            case QKV: return l.qkv.pack(w, shape_.width(), hidden, threads);
            case QKV_BIAS: return void(l.bias.assign(w, w + shape_.width()));
            case Q_NORM: return void(l.q_norm.assign(w, w + d_.D));
            case K_NORM: return void(l.k_norm.assign(w, w + d_.D));
            case OUT: return l.out.pack(w, hidden, d_.H * d_.D, threads);
            case MLP_NORM: return void(l.mlp_norm.assign(w, w + hidden));
            case GATE_UP: return l.gate_up.pack(w, 2 * d_.intermediate, hidden, threads);
            default: return l.down.pack(w, hidden, d_.intermediate, threads);
        }
    }

    Index prefill(const Index* tokens, const Index* start, Index prompts, const Index* copies, Index* rows,
                  float* logits, Index threads) override {
        for (Index t = 0; t < start[prompts]; t++)
            if (tokens[t] < 0 || tokens[t] >= d_.vocab) return t;
        std::vector<std::unique_ptr<Prompt>> opened;
        for (Index p = 0; p < prompts; p++) {
            opened.push_back(std::make_unique<Prompt>());
            opened.back()->cache.grow(pool_, start[p + 1] - start[p]);
            opened.back()->users = copies[p];
        }
        // Whole prompts per job, about as many tokens in each.
        const Index share = std::clamp<Index>(start[prompts] / std::max<Index>(threads, 1), 1, PREFILL_ROWS);
        std::vector<Index> first = {0};
        for (Index p = 0; p < prompts; p++)
            if (start[p + 1] - start[first.back()] >= share || p + 1 == prompts) first.push_back(p + 1);
        parallel(Index(first.size()) - 1, threads, [&](Index job) {
            read_prompts(tokens, start, first[size_t(job)], first[size_t(job) + 1], opened, logits);
        });
        for (Index p = 0; p < prompts; p++) {
            Prompt* prompt = opened[size_t(p)].get();
            for (Index c = 0; c < copies[p]; c++) {
                const Index number = next_row_++;
                rows_.emplace(number, Row{prompt, {}});
                *rows++ = number;
            }
            if (copies[p])
                prompts_.emplace(prompt, std::move(opened[size_t(p)]));
            else
                prompt->cache.drop(pool_);
        }
        return -1;
    }

    Index step(const Index* rows, const Index* tokens, Index count, float* logits, Index threads) override {
        std::vector<Query> queries;
        for (Index i = 0; i < count; i++) {
            auto found = rows_.find(rows[i]);
            if (found == rows_.end() || tokens[i] < 0 || tokens[i] >= d_.vocab) return i;
            if (found->second.length() >= d_.positions) return i;
        }
        queries.reserve(size_t(count));
        for (Index i = 0; i < count; i++) {
            Row& row = rows_.find(rows[i])->second;
            const Index position = row.length();
            row.cache.grow(pool_, 1);
            queries.push_back({&row.cache, row.cache.length - 1, &row.prompt->cache, position});
        }
        Index blocks = std::max((count + STEP_ROWS - 1) / STEP_ROWS, std::min(threads, count));
        parallel(blocks, threads, [&](Index b) {
            const Index from = count * b / blocks, to = count * (b + 1) / blocks;
            float* x = compute(queries.data() + from, tokens + from, to - from);
            predict(x, to - from, logits + from * d_.vocab);
        });
        return -1;
    }

    Index release(const Index* rows, Index count) override {
        for (Index i = 0; i < count; i++) {
            auto found = rows_.find(rows[i]);
            if (found == rows_.end()) return i;
            Prompt* prompt = found->second.prompt;
            found->second.cache.drop(pool_);
            rows_.erase(found);
            if (--prompt->users == 0) {
                prompt->cache.drop(pool_);
                prompts_.erase(prompt);
            }
        }
        return -1;
    }

    void trim() override { pool_.trim(); }

private:
    // Take prompts `from` .. `to` - 1 through the layers, PREFILL_ROWS tokens at a time, in order.
    void read_prompts(const Index* tokens, const Index* start, Index from, Index to,
                      const std::vector<std::unique_ptr<Prompt>>& opened, float* logits) {
        std::vector<Query> queries;
        std::vector<Index> ends;  // rows of this block that end a prompt
        Index first = start[from], done = from;
        std::vector<float> last;
        for (Index p = from; p < to; p++)
            for (Index t = start[p]; t < start[p + 1]; t++) {
                queries.push_back({&opened[size_t(p)]->cache, t - start[p], nullptr, t - start[p]});
                if (t + 1 == start[p + 1]) ends.push_back(Index(queries.size()) - 1);
                if (Index(queries.size()) < PREFILL_ROWS && t + 1 < start[to]) continue;
                float* x = compute(queries.data(), tokens + first, Index(queries.size()));
                for (size_t e = 0; e < ends.size(); e++)  // ends[e] >= e: moving up never overwrites
                    if (ends[e] != Index(e))
                        memcpy(x + Index(e) * d_.hidden, x + ends[e] * d_.hidden, size_t(d_.hidden) * 4);
                predict(x, Index(ends.size()), logits + done * d_.vocab);
                done += Index(ends.size());
                first = t + 1;
                queries.clear();
                ends.clear();
            }
    }

    void multiply(const Matrix<E>& w, const float* a, Index rows, const float* bias, bool add, float* c) {
        E* copy = std::is_same<E, float>::value ? nullptr : elements.get<E>(rows * w.steps());
        product(rows_of(a, rows, w.inner, copy), w.steps(), rows, w.panels.data(), w.steps(),
                Sink{c, w.columns, w.columns, bias, add});
    }

    // Run tokens through all layers, appending to the cache; returns the (rows, hidden) stream before the final norm,
    // in this thread's scratch memory.
    float* compute(const Query* queries, const Index* tokens, Index rows) {
        const Index hidden = d_.hidden, width = shape_.width(), mixed_width = d_.H * d_.D;
        const Index wide = std::max(width, 2 * d_.intermediate);
        const Index narrow = std::max({hidden, mixed_width, d_.intermediate});
        float* x = activations.get<float>(rows * (hidden + wide + narrow));
        float *a = x + rows * hidden, *b = a + rows * narrow;
        for (Index r = 0; r < rows; r++)
            memcpy(x + r * hidden, &embedding_[size_t(tokens[r] * hidden)], size_t(hidden) * 4);
        for (Index i = 0; i < d_.layers; i++) {
            const Layer<E>& l = layers_[size_t(i)];
            norm(x, l.attn_norm, a, rows);
            multiply(l.qkv, a, rows, or_null(l.bias), false, b);
            for (Index r = 0, n; r < rows; r += n) {
                for (n = 1; n < TOGETHER && r + n < rows && queries[r + n].prefix == queries[r].prefix; n++) {}
                attend<C>(shape_, or_null(l.q_norm), or_null(l.k_norm), i, queries + r, n, b + r * width,
                          a + r * mixed_width, attention_memory);
            }
            multiply(l.out, a, rows, nullptr, true, x);
            norm(x, l.mlp_norm, a, rows);
            multiply(l.gate_up, a, rows, nullptr, false, b);
            for (Index r = 0; r < rows; r++)
                swiglu_row(b + r * 2 * d_.intermediate, a + r * d_.intermediate, d_.intermediate);
            multiply(l.down, a, rows, nullptr, true, x);
        }
        return x;
    }

    void norm(const float* x, const std::vector<float>& w, float* y, Index rows) const {
        for (Index r = 0; r < rows; r++)
            rms_norm_row(x + r * d_.hidden, w.data(), y + r * d_.hidden, d_.hidden, shape_.eps);
    }

    void predict(float* x, Index rows, float* logits) {
        norm(x, final_norm_, x, rows);
        multiply(head_, x, rows, nullptr, false, logits);
    }

    Dimensions d_;
    std::vector<float> angles_;
    HeadShape shape_;
    Pool pool_;
    std::vector<Layer<E>> layers_;
    std::vector<float> embedding_, final_norm_;
    Matrix<E> head_;
    std::unordered_map<Index, Row> rows_;
    std::unordered_map<Prompt*, std::unique_ptr<Prompt>> prompts_;
    Index next_row_ = 0;
};

}  // namespace
}  // namespace ratchet

using namespace ratchet;

extern "C" {

// dimensions: the fields of Dimensions in order. cos_sin (positions, D) is copied.
void* ratchet_decoder_new(const Index* dimensions, float eps, const float* cos_sin, Index bf16) {
    Dimensions d;
    memcpy(&d, dimensions, sizeof d);
    if (bf16) return static_cast<Decoder*>(new DecoderOf<Pair, Bf16>(d, eps, cos_sin));
    return static_cast<Decoder*>(new DecoderOf<float, float>(d, eps, cos_sin));
}

void ratchet_decoder_free(void* decoder) { delete static_cast<Decoder*>(decoder); }

void ratchet_decoder_load(void* decoder, Index slot, Index layer, const float* w, Index threads) {
    static_cast<Decoder*>(decoder)->load(Slot(slot), layer, w, threads);
}

// start (prompts + 1); rows receives sum(copies) row numbers; logits (prompts, V). Returns -1, or the token at fault.
Index ratchet_decoder_prefill(void* decoder, const Index* tokens, const Index* start, Index prompts,
                              const Index* copies, Index* rows, float* logits, Index threads) {
    return static_cast<Decoder*>(decoder)->prefill(tokens, start, prompts, copies, rows, logits, threads);
}

// logits (count, V). Returns -1, or the index of the row at fault; then nothing has changed.
Index ratchet_decoder_step(void* decoder, const Index* rows, const Index* tokens, Index count, float* logits,
                           Index threads) {
    return static_cast<Decoder*>(decoder)->step(rows, tokens, count, logits, threads);
}

Index ratchet_decoder_release(void* decoder, const Index* rows, Index count) {
    return static_cast<Decoder*>(decoder)->release(rows, count);
}

void ratchet_decoder_trim(void* decoder) { static_cast<Decoder*>(decoder)->trim(); }
}
