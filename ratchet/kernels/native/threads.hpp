// Threads and scratch memory. The threads are those of the OpenMP runtime that torch has already loaded: the loader
// hands its entry point to `ratchet_set_runtime`, so this library links to no runtime and starts no pool of its own.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdlib>

#include "simd.hpp"

namespace ratchet {

// GOMP_parallel(function, argument, threads, flags), or null: then everything runs on the calling thread.
using Runtime = void (*)(void (*)(void*), void*, unsigned, unsigned);
extern Runtime runtime;

// Run job(0) .. job(jobs - 1), each exactly once, on up to `threads` threads. Which thread runs a job is left to
// chance, so a job must not depend on it: results are then the same for every number of threads.
template <class Job>
void parallel(Index jobs, Index threads, const Job& job) {
    struct Shared {
        const Job* job;
        Index jobs;
        std::atomic<Index> next;
        static void work(void* self) {
            auto* s = static_cast<Shared*>(self);
            for (Index j; (j = s->next.fetch_add(1, std::memory_order_relaxed)) < s->jobs;) (*s->job)(j);
        }
    } shared{&job, jobs, {0}};
    if (threads > jobs) threads = jobs;
    if (threads <= 1 || !runtime)
        Shared::work(&shared);
    else
        runtime(Shared::work, &shared, unsigned(threads), 0);
}

// Memory that a thread keeps between calls, aligned to a cache line. `get` invalidates what the same buffer gave
// before, and does not clear.
class Scratch {
public:
    template <class T>
    T* get(Index count) {
        size_t bytes = size_t(round_up(count * Index(sizeof(T)) + 64, 64));
        if (bytes > size_) {
            std::free(data_);
            data_ = std::aligned_alloc(64, bytes);
            size_ = bytes;
        }
        return static_cast<T*>(data_);
    }
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { std::free(data_); }

private:
    void* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace ratchet
