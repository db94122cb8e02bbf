// The functions of a firmware side by side, as in hardware, to find out how deep its streams have to be.
//
// Every function is a fiber. Time goes in cycles, and in a cycle a function reads at most one word of a stream, which was
// there before, and writes at most one word to a stream. With no limit to the words in a stream, the most it ever held is
// a depth at which this run would have been the same; and since functions that wait for words, and for room, and for
// nothing else, make the same words at whatever speed each of them runs (G. Kahn, 1974), no other run blocks either.
#ifndef CSIM_NETWORK_H
#define CSIM_NETWORK_H

#include <sys/mman.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

namespace csim {

struct queue;

class network {
    struct fiber {
        std::function<void()> body;
        ucontext_t context;
        void* stack;
        bool done = false;
        const queue* waits_for = nullptr;
        bool writes = false;
    };

    const std::size_t stack_bytes_;
    std::vector<std::unique_ptr<fiber>> fibers_;
    ucontext_t outside_;
    fiber* current_ = nullptr;

    static void enter() {
        fiber& self = *running->current_;
        self.body();
        self.done = running->progress = true;
        swapcontext(&self.context, &running->outside_);
    }

public:
    inline static network* running = nullptr;
    long now = 0;
    bool progress = false;

    explicit network(std::size_t stack_bytes) : stack_bytes_(stack_bytes) {}
    network(const network&) = delete;
    network& operator=(const network&) = delete;
    ~network() {
        for (const auto& f : fibers_) munmap(f->stack, stack_bytes_);
    }

    // Returns false if there is no memory for its stack.
    bool add(std::function<void()> body) {
        void* const stack = mmap(nullptr, stack_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) return false;
        fibers_.push_back(std::make_unique<fiber>());
        fiber& f = *fibers_.back();
        f.body = std::move(body);
        f.stack = stack;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stack;
        f.context.uc_stack.ss_size = stack_bytes_;
        f.context.uc_link = nullptr;
        makecontext(&f.context, &network::enter, 0);
        return true;
    }

    // Run until all functions have returned; false if none of those left can go on. Where `uneven` is not 0, it is where
    // random numbers start that make functions miss a turn now and then.
    bool run(unsigned uneven) {
        running = this;
        bool left = true, able = true;
        for (progress = true; left && able; ++now) {
            const bool random = uneven && progress;
            left = progress = able = false;
            for (const auto& f : fibers_) {
                if (f->done) continue;
                left = true;
                uneven = uneven * 1664525u + (uneven ? 1013904223u : 0u);
                if (random && uneven >> 30 == 0) {
                    able = true;
                    continue;
                }
                current_ = f.get();
                swapcontext(&outside_, &f->context);
            }
            able |= progress;
        }
        running = nullptr;
        return !left;
    }

    // The current function goes on in the next cycle.
    void wait(const queue* stream, bool writes) {
        current_->waits_for = stream;
        current_->writes = writes;
        swapcontext(&current_->context, &outside_);
        current_->waits_for = nullptr;
    }

    // What function number `i` waits for; null if it does not.
    const queue* waits_for(std::size_t i) const { return fibers_[i]->done ? nullptr : fibers_[i]->waits_for; }
    bool writes(std::size_t i) const { return fibers_[i]->writes; }
};

// The words of one stream, counted.
struct queue {
    long room = 0;  // most words it may hold; 0: any number
    long words = 0, most = 0;
    long last_read = -1, last_write = -1;

    void before_read() {
        network& all = *network::running;
        while (last_read == all.now || words == (last_write == all.now)) all.wait(this, false);
        last_read = all.now;
        --words;
        all.progress = true;
    }
    void before_write() {
        network& all = *network::running;
        while (last_write == all.now || (room && words >= room)) all.wait(this, true);
        last_write = all.now;
        if (++words > most) most = words;
        all.progress = true;
    }
};

}  // namespace csim

#endif
