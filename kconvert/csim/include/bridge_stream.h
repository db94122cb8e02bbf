// What turns a firmware of streams into a shared object, besides what every firmware needs.
#ifndef CSIM_BRIDGE_STREAM_H
#define CSIM_BRIDGE_STREAM_H

#include <atomic>
#include <vector>

#include "bridge.h"
#include "hls_stream.h"

namespace nnet {
template <class T, unsigned N> struct word;
template <unsigned WORDS, class T, unsigned N> void collect(hls::stream<word<T, N>>& from, csim::pack<T> x[]);
template <unsigned WORDS, class T, unsigned N> void emit(const csim::pack<T> y[], hls::stream<word<T, N>>& to);
}  // namespace nnet

namespace csim {

// The words that wait in a stream, when the function that wrote them has returned.
template <class T, unsigned N> void trace_stream(int index, long words, const hls::stream<nnet::word<T, N>>& s) {
    if (!tracing->arrays[index] || long(s.size()) != words) return;
    std::vector<pack<T>> tensor(words * N);
    for (long w = 0; w < words; ++w)
        for (unsigned c = 0; c < N; ++c) tensor[w * N + c] = s.peek(w).data[c];
    put(tensor.data(), long(tensor.size()), tracing->arrays[index], tracing->first, tracing->count);
}

#define NNET_TRACE_STREAM(index, words, stream) \
    if (csim::tracing) csim::trace_stream(index, words, stream);

template <unsigned WORDS, class REAL, class T, unsigned N>
void feed(batch<REAL>& from, int index, long first, int count, hls::stream<nnet::word<T, N>>& to) {
    pack<T> tensor[WORDS * N];
    from.load(index, first, count, tensor);
    nnet::emit<WORDS>(tensor, to);
}

template <unsigned WORDS, class REAL, class T, unsigned N>
void drain(batch<REAL>& to, int index, long first, int count, hls::stream<nnet::word<T, N>>& from) {
    pack<T> tensor[WORDS * N];
    nnet::collect<WORDS>(from, tensor);
    to.store(index, first, count, tensor);
}

// The first stream of this object that was read while it was empty, or not read to its end; "" where memory ran out.
inline std::atomic<const char*> faulty_stream{nullptr};
inline std::atomic<long> words_left{0};

// Run all packs of `count` samples, until something is wrong with a stream.
template <class FIRMWARE, class BATCH> void run_packs(BATCH& todo, long first, int count, stream_memory& memory) {
    kept_memory = &memory;
    first_fault = {};
    for (int done = 0; done < count && !faulty_stream; done += lanes) {
        try {
            FIRMWARE::run_pack(todo, first + done, count - done < lanes ? count - done : lanes);
        } catch (const std::bad_alloc&) {
            first_fault = {"", -1};
        } catch (const std::runtime_error&) {  // first_fault says what it was
        }
        if (!first_fault.stream) continue;
        const char* none = nullptr;
        if (faulty_stream.compare_exchange_strong(none, first_fault.stream)) words_left = first_fault.left;
    }
    kept_memory = nullptr;
}

}  // namespace csim

// The name of a stream that something was wrong with in the last run, and how many words were left in it; null if all went well.
#define CSIM_EXPORT_FAULT                                                                               \
    extern "C" [[gnu::visibility("default")]] const char* kconvert_stream_fault(long* left) {           \
        *left = csim::words_left;                                                                       \
        return csim::faulty_stream.exchange(nullptr);                                                   \
    }

#endif
