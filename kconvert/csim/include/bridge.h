// What turns a generated firmware into a shared object: batches, threads, traces, constants as data.
#ifndef CSIM_BRIDGE_H
#define CSIM_BRIDGE_H

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <utility>

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

// Says, while it lives, which samples the tensors hold that are traced.
template <class BATCH> struct traced {
    const sink to;

    traced(const BATCH& batch, long first, int count) : to{batch.traces, first, count} {
        tracing = batch.traces ? &to : nullptr;
    }
    ~traced() { tracing = nullptr; }
};

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

template <int... I, class V> CSIM_FN V shuffled(const V& a, const V& b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, lanes_of<typename int_of<8 * int(sizeof(a[0])), true>::type>{I...});
#endif
}

// Exchanges rows and columns. In every round row 2i becomes the first halves of rows i and i + lanes/2, element by
// element in turn, and row 2i + 1 the second halves.
template <class V, int... I> CSIM_FN void transpose(V (&rows)[lanes], std::integer_sequence<int, I...>) {
    for (int round = 1; round < lanes; round *= 2) {
        V mixed[lanes];
#pragma GCC unroll 16
        for (int i = 0; i < lanes / 2; ++i) {
            const V &a = rows[i], &b = rows[i + lanes / 2];
            mixed[2 * i] = shuffled<(I % 2 * lanes + I / 2)...>(a, b);
            mixed[2 * i + 1] = shuffled<(I % 2 * lanes + lanes / 2 + I / 2)...>(a, b);
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) rows[i] = mixed[i];
    }
}

template <class REAL> struct batch {
    const REAL* const* inputs;  // [samples, size] each
    double* const* outputs;
    double* const* traces;  // null if nothing is traced
    long samples;
    input_report* reports;  // one for each input
    std::atomic<long> next{0};

    template <class R> using flag = std::conditional_t<sizeof(R) == 4, int32_t, int64_t>;

    template <class T> static constexpr auto smallest() {
        using raw = typename T::raw_type;
        return T::sign_flag ? raw(-(int128(1) << (T::width - 1))) : raw(0);
    }
    template <class T> static constexpr auto largest() {
        using raw = typename T::raw_type;
        return raw((uint128(1) << (T::width - T::sign_flag)) - 1);
    }

    // Converts values, and counts those that are no numbers or outside the range of T.
    template <class T> struct watch {
        static constexpr bool byte = sizeof(REAL) == 1;
        using number = std::conditional_t<byte, float, REAL>;
        static constexpr number low = number(T::from_raw(smallest<T>()).to_double());
        static constexpr number high = number(T::from_raw(largest<T>()).to_double());
        static constexpr number step = number(T::from_raw(1).to_double());
        lanes_of<flag<number>> outside{}, not_finite{};

        CSIM_FN pack<T> load(const lanes_of<REAL>& x) {
            if constexpr (byte) {
                if constexpr (high + step < 255) outside -= to<int32_t>(make_mask(x > REAL(high + step)).raw);
                return pack<ap_uint<8>>::from_raw(x);
            } else {
                not_finite -= lanes_of<flag<number>>(x - x != number(0));
                outside -= lanes_of<flag<number>>(x < low - step) + lanes_of<flag<number>>(x > high + step);
                number plain[lanes];
                __builtin_memcpy(plain, &x, sizeof(x));
                return pack<T>::load(plain);
            }
        }
    };

    template <class T, unsigned long N> void load(int index, long first, int count, pack<T> (&tensor)[N]) {
        const REAL* from = inputs[index] + first * long(N);
        watch<T> seen;
        unsigned long i = 0;
        if constexpr (sizeof(REAL) * lanes <= 64) {
            for (; count == lanes && i + lanes <= N; i += lanes) {  // a square of as many elements as samples
                lanes_of<REAL> values[lanes];
                for (int l = 0; l < lanes; ++l) {
                    __builtin_memcpy(&values[l], from + l * N + i, sizeof(values[l]));
                    // the next pack's, in the order of memory, which processors do not foresee by themselves
                    if (l * sizeof(values[l]) % 64 == 0) __builtin_prefetch(from + lanes * (N + i + l));
                }
                transpose(values, std::make_integer_sequence<int, lanes>());
                for (int l = 0; l < lanes; ++l) tensor[i + l] = seen.load(values[l]);
            }
        }
        for (; i < N; ++i) {
            lanes_of<REAL> values;
            // a ragged last pack repeats its last sample
            for (int l = 0; l < lanes; ++l) values[l] = from[(l < count ? l : count - 1) * N + i];
            tensor[i] = seen.load(values);
        }
        report(reports[index].outside, seen.outside, count);
        report(reports[index].not_finite, seen.not_finite, count);
    }

    template <class T, unsigned long N> void store(int index, long first, int count, const pack<T> (&tensor)[N]) {
        put(tensor, long(N), outputs[index], first, count);
    }

private:
    template <class M> static void report(std::atomic<long>& total, const M& counts, int count) {
        long sum = 0;
        for (int l = 0; l < count; ++l) sum += counts[l];
        if (sum) total += sum;
    }
};

// ---- threads ----------------------------------------------------------------------------------------------------------------------

template <class FIRMWARE> constexpr long share = FIRMWARE::samples < 8 * lanes ? 8 * lanes : FIRMWARE::samples;

template <class FIRMWARE, class REAL> void work(batch<REAL>& todo) {
    // few enough samples for even shares, many enough to make the counter free
    for (long first; (first = todo.next.fetch_add(share<FIRMWARE>)) < todo.samples;) {
        const long end = first + share<FIRMWARE> < todo.samples ? first + share<FIRMWARE> : todo.samples;
        for (long at = first; at < end; at += FIRMWARE::samples)
            FIRMWARE::run(todo, at, end - at < FIRMWARE::samples ? int(end - at) : FIRMWARE::samples);
    }
}

// Run a batch on `threads` threads; returns 0 for success, 1 if no thread could be started.
template <class FIRMWARE, class REAL> int run(batch<REAL>& todo, int threads) {
    constexpr unsigned long margin = 1ul << 20;
    constexpr unsigned long inline_limit = 4ul << 20;  // half of what a thread usually has
    constexpr unsigned long stack = (FIRMWARE::bytes + margin + 0xffff) & ~0xfffful;
    const long shares = (todo.samples + share<FIRMWARE> - 1) / share<FIRMWARE>;
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
    extern "C" [[gnu::visibility("default")]] int kconvert_run_byte(const uint8_t* const* i, double* const* o, double* const* t, long n, long* r,        \
                                       int k) {                                                                            \
        return csim_run<uint8_t>(i, o, t, n, r, k);                                                                        \
    }                                                                                                                      \
    extern "C" [[gnu::visibility("default")]] void kconvert_load(int index, const int64_t* raw) {                                                         \
        const csim::constant& c = FIRMWARE::constants[index];                                                              \
        c.fill(c.array, raw, c.size);                                                                                      \
    }

#endif
