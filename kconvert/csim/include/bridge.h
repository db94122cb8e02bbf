// What turns a generated firmware into a shared object: batches, threads, traces, constants as data.
#ifndef CSIM_BRIDGE_H
#define CSIM_BRIDGE_H

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "lanes.h"

namespace csim {

// ---- traces -----------------------------------------------------------------------------------------------------------------

struct sink {
    double* const* arrays;  // one array [samples, size] for each traced tensor
    long first;
    int count;
};

inline thread_local const sink* tracing = nullptr;

template <class T> void put(const pack<T>* tensor, long size, double* array, long first, int count) {
    for (long i = 0; i < size; ++i) {
        double values[lanes];
        tensor[i].store(values);
        for (int l = 0; l < count; ++l) array[(first + l) * size + i] = values[l];
    }
}

template <class T> [[gnu::noinline]] void trace(int index, long size, const pack<T>* tensor) {
    if (tracing->arrays[index]) put(tensor, size, tracing->arrays[index], tracing->first, tracing->count);
}

#define NNET_TRACE(index, size, tensor) \
    if (csim::tracing) csim::trace(index, size, tensor);

// ---- constants ----------------------------------------------------------------------------------------------------------------

struct constant {
    void* array;
    long size;
    void (*fill)(void* array, const int64_t* raw, long size);
};

template <class T, unsigned long N> constexpr constant constant_of(T (&array)[N]) {
    return {array, long(N), [](void* to, const int64_t* raw, long size) {
                for (long i = 0; i < size; ++i) static_cast<T*>(to)[i] = T::from_raw(typename T::raw_type(raw[i]));
            }};
}

// Room for a layer's own arrays of `elements` packs: a window in the input's lanes, its copy in lanes of 64 bits, and
// accumulators of up to 128.
constexpr unsigned long scratch_bytes(unsigned long elements) { return 32ul * lanes * elements; }

// ---- batches --------------------------------------------------------------------------------------------------------------------

struct input_report {
    std::atomic<long> outside{0};     // values beyond the range of the input's type
    std::atomic<long> not_finite{0};  // NaN and infinities
};

template <class REAL> struct batch {
    const REAL* const* inputs;  // [samples, size] each
    double* const* outputs;
    double* const* traces;  // null if nothing is traced
    long samples;
    input_report* reports;  // one for each input
    std::atomic<long> next{0};

    template <class T, unsigned long N> void load(int index, long first, int count, pack<T> (&tensor)[N]) {
        constexpr REAL low = REAL(T::from_raw(smallest<T>()).to_double());
        constexpr REAL high = REAL(T::from_raw(largest<T>()).to_double());
        constexpr REAL step = REAL(T::from_raw(1).to_double());
        const REAL* from = inputs[index] + first * long(N);
        lanes_of<flag<REAL>> outside{}, not_finite{};
        for (unsigned long i = 0; i < N; ++i) {
            REAL values[lanes];
            // a ragged last pack repeats its last sample
            if (count == lanes)
                for (int l = 0; l < lanes; ++l) values[l] = from[l * N + i];
            else
                for (int l = 0; l < lanes; ++l) values[l] = from[(l < count ? l : count - 1) * N + i];
            lanes_of<REAL> x;
            __builtin_memcpy(&x, values, sizeof(x));
            tensor[i] = pack<T>::load(values);
            not_finite -= lanes_of<flag<REAL>>(x - x != REAL(0));
            outside -= lanes_of<flag<REAL>>(x < low - step) + lanes_of<flag<REAL>>(x > high + step);
        }
        report(reports[index].outside, outside, count);
        report(reports[index].not_finite, not_finite, count);
    }

    template <class T, unsigned long N> void store(int index, long first, int count, const pack<T> (&tensor)[N]) {
        put(tensor, long(N), outputs[index], first, count);
    }

private:
    template <class R> using flag = std::conditional_t<sizeof(R) == 4, int32_t, int64_t>;
    template <class T> static constexpr auto smallest() {
        using raw = typename T::raw_type;
        return T::sign_flag ? raw(-(int128(1) << (T::width - 1))) : raw(0);
    }
    template <class T> static constexpr auto largest() {
        using raw = typename T::raw_type;
        return raw((uint128(1) << (T::width - T::sign_flag)) - 1);
    }
    template <class M> static void report(std::atomic<long>& total, const M& counts, int count) {
        long sum = 0;
        for (int l = 0; l < count; ++l) sum += counts[l];
        if (sum) total += sum;
    }
};

// ---- threads ----------------------------------------------------------------------------------------------------------------------

template <class FIRMWARE, class REAL> void work(batch<REAL>& todo) {
    constexpr long packs_at_once = 8;  // few enough for even shares, many enough to make the counter free
    for (;;) {
        const long first = todo.next.fetch_add(packs_at_once * lanes);
        if (first >= todo.samples) return;
        for (int p = 0; p < packs_at_once; ++p) {
            const long at = first + long(p) * lanes;
            if (at >= todo.samples) return;
            const int count = todo.samples - at < lanes ? int(todo.samples - at) : lanes;
            const sink traced{todo.traces, at, count};
            tracing = todo.traces ? &traced : nullptr;
            FIRMWARE::run(todo, at, count);
            tracing = nullptr;
        }
    }
}

// Run a batch on `threads` threads; returns 0 for success, 1 if no thread could be started.
template <class FIRMWARE, class REAL> int run(batch<REAL>& todo, int threads) {
    constexpr unsigned long margin = 1ul << 20;
    constexpr unsigned long inline_limit = 4ul << 20;  // half of what a thread usually has
    constexpr unsigned long stack = (FIRMWARE::bytes + margin + 0xffff) & ~0xfffful;
    const long shares = (todo.samples + 8 * lanes - 1) / (8 * lanes);
    if (threads > shares) threads = int(shares);
    if (threads <= 1 && stack <= inline_limit) {
        work<FIRMWARE, REAL>(todo);
        return 0;
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack < inline_limit ? inline_limit : stack);
    constexpr int most = 256;
    pthread_t started[most];
    int running = 0;
    for (int t = 0; t < (threads < most ? threads : most) || t == 0; ++t) {
        const auto entry = [](void* argument) -> void* {
            work<FIRMWARE, REAL>(*static_cast<batch<REAL>*>(argument));
            return nullptr;
        };
        if (pthread_create(&started[running], &attributes, entry, &todo) == 0) ++running;
    }
    pthread_attr_destroy(&attributes);
    for (int t = 0; t < running; ++t) pthread_join(started[t], nullptr);
    return running == 0;
}

}  // namespace csim

#define CSIM_EXPORT(FIRMWARE)                                                                                              \
    template <class REAL>                                                                                                  \
    static int csim_run(const REAL* const* inputs, double* const* outputs, double* const* traces, long samples,           \
                        long* reports, int threads) {                                                                      \
        csim::input_report found[FIRMWARE::n_inputs];                                                                      \
        csim::batch<REAL> todo{inputs, outputs, traces, samples, found};                                                   \
        const int status = csim::run<FIRMWARE, REAL>(todo, threads);                                                       \
        for (int i = 0; i < FIRMWARE::n_inputs; ++i) {                                                                     \
            reports[2 * i] = found[i].outside;                                                                             \
            reports[2 * i + 1] = found[i].not_finite;                                                                      \
        }                                                                                                                  \
        return status;                                                                                                     \
    }                                                                                                                      \
    extern "C" [[gnu::visibility("default")]] int kconvert_run_float(const float* const* i, double* const* o, double* const* t, long n, long* r, int k) { \
        return csim_run<float>(i, o, t, n, r, k);                                                                          \
    }                                                                                                                      \
    extern "C" [[gnu::visibility("default")]] int kconvert_run_double(const double* const* i, double* const* o, double* const* t, long n, long* r,       \
                                       int k) {                                                                            \
        return csim_run<double>(i, o, t, n, r, k);                                                                         \
    }                                                                                                                      \
    extern "C" [[gnu::visibility("default")]] void kconvert_load(int index, const int64_t* raw) {                                                         \
        const csim::constant& c = FIRMWARE::constants[index];                                                              \
        c.fill(c.array, raw, c.size);                                                                                      \
    }

#endif
