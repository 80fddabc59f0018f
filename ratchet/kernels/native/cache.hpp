// The key-value cache: sequences as lists of pages, taken from a pool that grows on demand.
#pragma once
#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "simd.hpp"

namespace ratchet {

constexpr Index PAGE = 32;  // tokens per page

// Hands out pages of one size. Not for several threads at once. Pages given back are kept for the next taker; all
// memory returns to the system with `trim`, or when the pool dies.
class Pool {
public:
    explicit Pool(size_t page_bytes) : bytes_(size_t(round_up(Index(page_bytes), 4096))) {}

    void* take() {
        if (free_.empty()) grow();
        void* page = free_.back();
        free_.pop_back();
        used_++;
        return page;
    }
    void give(void* page) {
        free_.push_back(page);
        used_--;
    }
    // Return everything to the system if no page is in use.
    void trim() {
        if (used_) return;
        free_.clear();
        slabs_.clear();
    }

private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    void grow() {
        // About 4 MiB at a time: small enough not to waste, large enough for huge memory pages.
        const size_t count = bytes_ * 2 > SLAB ? 1 : SLAB / bytes_;
        const size_t size = (bytes_ * count + HUGE - 1) / HUGE * HUGE;
        char* slab = static_cast<char*>(std::aligned_alloc(HUGE, size));
        if (!slab) throw std::bad_alloc();
#if defined(__linux__)
        madvise(slab, size, MADV_HUGEPAGE);
#endif
        slabs_.emplace_back(slab);
        for (size_t i = count; i-- > 0;) free_.push_back(slab + i * bytes_);
    }
    static constexpr size_t SLAB = 4 << 20, HUGE = 2 << 20;
    size_t bytes_, used_ = 0;
    std::vector<std::unique_ptr<void, Free>> slabs_;
    std::vector<void*> free_;
};

// Keys and values of consecutive tokens. Page layout, per layer and key head: keys (D, PAGE), then values (PAGE, D).
// Keys lie across, so that the scores of many keys are one vector.
struct Sequence {
    std::vector<void*> pages;
    Index length = 0;

    void grow(Pool& pool, Index count) {
        length += count;
        while (Index(pages.size()) * PAGE < length) pages.push_back(pool.take());
    }
    void drop(Pool& pool) {
        for (void* page : pages) pool.give(page);
        pages.clear();
        length = 0;
    }
};

// One token being computed: where its key and value go, and what it sees.
struct Query {
    const Sequence* own;     // holds this token at `place`; it sees 0 .. place
    Index place;
    const Sequence* prefix;  // seen whole, before `own`; may be null
    Index position;          // in the full sequence

    Index seen() const { return place + 1; }
};

}  // namespace ratchet
