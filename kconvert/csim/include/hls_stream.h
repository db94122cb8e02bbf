// hls::stream<T>: a first-in first-out queue between functions. In this sequential simulation a stream takes whatever is
// written; with KCONVERT_CONCURRENT, where functions run side by side, reading and writing wait (see network.h).
#ifndef CSIM_HLS_STREAM_H
#define CSIM_HLS_STREAM_H

#include <cstddef>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef KCONVERT_CONCURRENT
#include "network.h"
#endif

namespace csim {

// The first thing that went wrong with a stream in this thread.
struct stream_fault {
    const char* stream;  // its name; null if nothing did
    long left;           // words that nobody read; 0 if it was read while it was empty
};
inline thread_local stream_fault first_fault{};

// Memory of the streams of one thread, from one run of the firmware to the next. Streams are made and dropped in the same
// order in every run, so each finds its own again.
class stream_memory {
    std::vector<std::pair<void*, std::size_t>> free_;

public:
    static constexpr std::align_val_t alignment{64};

    stream_memory() = default;
    stream_memory(const stream_memory&) = delete;
    stream_memory& operator=(const stream_memory&) = delete;
    ~stream_memory() {
        for (const auto& block : free_) ::operator delete(block.first, alignment);
    }

    std::pair<void*, std::size_t> take() {
        if (free_.empty()) return {nullptr, 0};
        const auto block = free_.back();
        free_.pop_back();
        return block;
    }
    void give(void* memory, std::size_t bytes) { free_.emplace_back(memory, bytes); }
};
inline thread_local stream_memory* kept_memory = nullptr;

}  // namespace csim

namespace hls {

template <class T, int DEPTH = 0> class stream {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    explicit stream(const char* name = "unnamed") : name_(name) {
        if (csim::kept_memory) {
            const auto [memory, bytes] = csim::kept_memory->take();
            words_ = static_cast<T*>(memory);
            bytes_ = bytes;
        }
    }
    stream(const stream&) = delete;  // a stream has one writer and one reader
    stream& operator=(const stream&) = delete;
    ~stream() {
        if (!empty() && !csim::first_fault.stream) csim::first_fault = {name_, long(size())};
        if (csim::kept_memory) csim::kept_memory->give(words_, bytes_);
        else ::operator delete(words_, csim::stream_memory::alignment);
    }

    void write(const T& value) { slot() = value; }
    bool write_nb(const T& value) {
        write(value);
        return true;
    }
    T read() { return next(); }
    void read(T& value) { value = next(); }
    bool read_nb(T& value) {
        if (empty()) return false;
        value = next();
        return true;
    }

    // The place of one more word, to be written before anything else is done with the stream.
    T& slot() {
#ifdef KCONVERT_CONCURRENT
        queue.before_write();
#endif
        if ((last_ + 1) * sizeof(T) > bytes_) grow();
        T& place = words_[last_++];
        if (size() > most_) most_ = size();
        return place;
    }
    // The next word, which stays where it is until something is written.
    const T& next() {
#ifdef KCONVERT_CONCURRENT
        queue.before_read();
#endif
        if (empty()) fail();
        const T& word = words_[first_++];
        if (empty()) first_ = last_ = 0;
        return word;
    }
    // Word number `i` from now.
    const T& peek(std::size_t i) const { return words_[first_ + i]; }

    bool empty() const { return first_ == last_; }
    bool full() const { return false; }
    std::size_t size() const { return last_ - first_; }
    std::size_t max_size() const { return most_; }
    const char* name() const { return name_; }

    stream& operator<<(const T& value) {
        write(value);
        return *this;
    }
    stream& operator>>(T& value) {
        read(value);
        return *this;
    }

#ifdef KCONVERT_CONCURRENT
    csim::queue queue;
#endif

private:
    [[gnu::cold, gnu::noinline]] void fail() {
        if (!csim::first_fault.stream) csim::first_fault = {name_, 0};
        throw std::runtime_error("stream '" + std::string(name_) + "' is read while it is empty");
    }
    [[gnu::noinline]] void grow() {
        const std::size_t bytes = 2 * bytes_ + 16 * sizeof(T);
        void* const more = ::operator new(bytes, csim::stream_memory::alignment);
        if (last_) std::memcpy(more, static_cast<const void*>(words_), last_ * sizeof(T));
        ::operator delete(words_, csim::stream_memory::alignment);
        words_ = static_cast<T*>(more);
        bytes_ = bytes;
    }

    const char* name_;
    T* words_ = nullptr;
    std::size_t bytes_ = 0, first_ = 0, last_ = 0, most_ = 0;
};

}  // namespace hls

#endif
