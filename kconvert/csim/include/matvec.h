// Matrix times vector over lanes, summed in the narrowest integers that provably give the accumulator's bits.
//
// A wrapping accumulator is arithmetic modulo 2^W: the order and the intermediate width of a sum do not matter, and the
// rounding of each product (down, or to nearest with ties to one side) does not depend on the sum it is added to. So the
// sum may run in 32 bits where the accumulator has no more, or where the weights are small enough for the sum of all
// products to fit, whatever the inputs are.
#ifndef CSIM_MATVEC_H
#define CSIM_MATVEC_H

#include "lanes.h"

namespace nnet {
namespace product {
struct exact;
template <class VALUE> struct sign;
template <class VALUE> struct xnor;
}
} // namespace nnet

namespace csim {

#define CSIM_INTRINSIC [[gnu::always_inline]] inline  // of the machine, so never constexpr

using word_lanes = lanes_of<std::int32_t>;  // one 32-bit integer a lane

// acc + x.low * w.low + x.high * w.high, where x (a lane) and w are pairs of 16-bit integers.
CSIM_INTRINSIC word_lanes dot_pairs(const word_lanes& acc, const word_lanes& x, std::int32_t w) {
    const word_lanes pairs = splat<word_lanes>(w);
#if defined(__AVX512VNNI__) && KCONVERT_LANES == 16 && !defined(__clang__)
    return word_lanes(__builtin_ia32_vpdpwssd_v16si(acc, x, pairs));
#elif defined(__AVX512VNNI__) && KCONVERT_LANES == 16
    return word_lanes(__builtin_ia32_vpdpwssd512(acc, x, pairs));
#elif defined(__AVX2__) && KCONVERT_LANES % 8 == 0
    using shorts256 = vector_of<short, 16>::type;
    using words256 = vector_of<int, 8>::type;
    word_lanes out;
    for (int p = 0; p < lanes / 8; ++p) {
        words256 part, sum;
        __builtin_memcpy(&part, reinterpret_cast<const char*>(&x) + 32 * p, 32);
        __builtin_memcpy(&sum, reinterpret_cast<const char*>(&acc) + 32 * p, 32);
        const words256 same = splat<words256>(w);
        sum += words256(__builtin_ia32_pmaddwd256(shorts256(part), shorts256(same)));
        __builtin_memcpy(reinterpret_cast<char*>(&out) + 32 * p, &sum, 32);
    }
    return out;
#else
    const word_lanes low = (x << 16) >> 16, high = x >> 16;
    return acc + low * std::int32_t(std::int16_t(w)) + high * (w >> 16);
#endif
}

// x.low * w.low for lanes whose high halves are zero, as signed 16-bit integers: cheaper than a product of 32 bits.
CSIM_INTRINSIC word_lanes multiply_shorts(const word_lanes& x, std::int32_t w) {
#if defined(__AVX512BW__) && KCONVERT_LANES == 16 && !defined(__clang__)
    using shorts512 = vector_of<short, 32>::type;
    const word_lanes all = splat<word_lanes>(w);
    return word_lanes(__builtin_ia32_pmaddwd512_mask(shorts512(x), shorts512(all), word_lanes{}, -1));
#else
    return dot_pairs(word_lanes{}, x, w);
#endif
}

#if defined(__AVX512VPOPCNTDQ__) && KCONVERT_LANES == 16 && !defined(__clang__)
#define CSIM_COUNTS_BITS
CSIM_INTRINSIC word_lanes count_ones(const word_lanes& x) { return word_lanes(__builtin_ia32_vpopcountd_v16si(x)); }
#endif

// What a stored weight stands for, by product policy: a number of `format` with the integer raw(w).
template <class PRODUCT, class W> struct weights {
    static constexpr bool known = false, signs = false;  // a policy of somebody else's
    static constexpr fmt format = W::format;
    static constexpr std::int64_t raw(const W& w) { return w.raw; }
};
template <class W> struct weights<nnet::product::exact, W> {
    static constexpr bool known = true, signs = false;
    static constexpr fmt format = W::format;
    static constexpr std::int64_t raw(const W& w) { return w.raw; }
};
template <class VALUE, class W> struct weights<nnet::product::sign<VALUE>, W> {
    static constexpr bool known = true, signs = false;
    static constexpr fmt format = VALUE::format;
    static constexpr std::int64_t raw(const W& w) { return w.raw ? 1 : -1; }
};
// Inputs are signs too, and the accumulator holds every sum: it need not wrap.
template <class VALUE, class W> struct weights<nnet::product::xnor<VALUE>, W> : weights<nnet::product::sign<VALUE>, W> {
    static constexpr bool signs = true;
};

enum class summing {
    refused,  // the kernel's own loops
    signs,    // 32 products at a time, each a bit
    pairs,    // two products of 16 bits at a time, in 32 bits
    narrow,   // products and sum in 32 bits
    wide,     // products and sum in 64 bits
};

// The weights of one layer, laid out for summing.
template <class CONFIG_T, class X, class A> class matrix {
    using weight_t = typename CONFIG_T::weight_t;
    using bias_t = typename CONFIG_T::bias_t;
    using stored = weights<typename CONFIG_T::product, weight_t>;
    static constexpr fmt in = X::format, w = stored::format, acc = A::format, exact = mul_fmt(in, w);
    static constexpr int n_in = CONFIG_T::n_in, n_out = CONFIG_T::n_out;
    static constexpr int drop = exact.f() - acc.f();  // bits of a product below the accumulator's last

    static constexpr bool additive =  // rounding a product does not depend on the sum so far
        drop <= 0 || acc.q == AP_TRN || acc.q == AP_RND || acc.q == AP_RND_MIN_INF;
    static constexpr bool fits_short(fmt f) { return f.w + !f.s <= 16; }
    static constexpr bool shorts = fits_short(in) && fits_short(w);
    static constexpr int product_bits = exact.w - in.s - w.s;  // a product is at most 2^product_bits in magnitude
    static constexpr int kept = drop < 0 ? acc.w + drop : acc.w;  // bits of the sum that reach the accumulator

    static constexpr summing choose(bool in_words) {
        if (!stored::known || !(acc.wraps() || stored::signs) || !additive) return summing::refused;
#ifdef CSIM_COUNTS_BITS
        if (in_words && stored::signs) return summing::signs;
#endif
        if (in_words && drop <= 0 && shorts) return summing::pairs;
        if (in_words) return product_bits <= 30 && drop <= 30 ? summing::narrow : summing::refused;
        return product_bits <= 62 && drop <= 62 && acc.w <= 64 ? summing::wide : summing::refused;
    }

    static constexpr bool words_always = kept <= 32;
    // how many outputs share a load of the input: as many accumulators as stay in registers
    static constexpr int registers = machine_bytes == 64 ? 16 : 8;

    std::int32_t* words_ = nullptr;  // weights in blocks of outputs: [block][input or pair][output of the block]
    std::int64_t* longs_ = nullptr;
    bool in_words_;

public:
    static constexpr bool useful = choose(true) != summing::refused || choose(false) != summing::refused;

    explicit matrix(const weight_t* weight) : in_words_(words_always || sum_fits_word(weight)) {
        if (in_words_ && choose(true) == summing::signs) lay_out<summing::signs>(weight, words_);
        else if (in_words_ && choose(true) == summing::pairs) lay_out<summing::pairs>(weight, words_);
        else if (in_words_ && choose(true) == summing::narrow) lay_out<summing::narrow>(weight, words_);
        else if constexpr (choose(false) == summing::wide) lay_out<summing::wide>(weight, longs_);
    }

    matrix(const matrix&) = delete;
    matrix& operator=(const matrix&) = delete;
    ~matrix() {
        delete[] words_;
        delete[] longs_;
    }

    // False if these weights are not small enough; nothing is written then.
    bool multiply(const X* x, const bias_t* bias, A* accum) const {
        if (in_words_ && choose(true) != summing::refused) {
            if constexpr (choose(true) != summing::refused) run<choose(true)>(x, words_, bias, accum);
            return true;
        }
        if constexpr (choose(false) != summing::refused) {
            run<summing::wide>(x, longs_, bias, accum);
            return true;
        }
        return false;
    }

private:
    // Whether the sum of all products of an output stays within 32 bits for every input there can be.
    static bool sum_fits_word(const weight_t* weight) {
        if constexpr (product_bits > 30) return false;
        else {
            const std::int64_t largest_input = std::int64_t(1) << (in.w - in.s);
            for (int o = 0; o < n_out; ++o) {
                std::int64_t total = 0;
                for (int i = 0; i < n_in; ++i) {
                    const std::int64_t v = stored::raw(weight[i * n_out + o]);
                    const std::int64_t term = (v < 0 ? -v : v) * largest_input;
                    total += drop > 0 ? (term >> drop) + 1 : term;
                    if (total > 0x7fffffff) return false;
                }
            }
            return true;
        }
    }

    template <summing S> static constexpr int block = S == summing::wide ? registers / 2 : registers / 2 + registers / 4;
    template <summing S> static constexpr int at_once = S == summing::signs ? 32 : S == summing::pairs ? 2 : 1;
    template <summing S> static constexpr int steps = (n_in + at_once<S> - 1) / at_once<S>;

    template <summing S, class E> static void lay_out(const weight_t* weight, E*& to) {
        to = new E[long(steps<S>) * n_out + 16]();
        E* at = to;
        for (int first = 0; first < n_out; first += block<S>) {
            for (int k = 0; k < steps<S>; ++k) {
                for (int o = first; o < first + block<S> && o < n_out; ++o) {
                    const auto raw = [&](int i) { return i < n_in ? stored::raw(weight[i * n_out + o]) : 0; };
                    if constexpr (S == summing::signs) {
                        std::uint32_t plus = 0;
                        for (int i = 0; i < 32; ++i) plus |= std::uint32_t(raw(32 * k + i) > 0) << i;
                        *at++ = E(plus);
                    } else if constexpr (S == summing::pairs) {
                        const auto low = std::uint16_t(raw(2 * k)), high = std::uint16_t(raw(2 * k + 1));
                        *at++ = E(std::uint32_t(low) | std::uint32_t(high) << 16);
                    } else if constexpr (S == summing::narrow && shorts) *at++ = E(std::uint16_t(raw(k)));
                    else *at++ = E(raw(k));
                }
            }
        }
    }

    template <summing S, class E> static void run(const X* x, const E* weight, const bias_t* bias, A* accum) {
        lanes_of<E> operands[steps<S>];
        for (int k = 0; k < steps<S>; ++k) {
            if constexpr (S == summing::signs) {
                word_lanes minus{};
                for (int i = 0; i < 32 && 32 * k + i < n_in; ++i) {
                    minus |= (to<std::int32_t>(x[32 * k + i].raw) >> 1) & splat<word_lanes>(std::int32_t(1u << i));
                }
                operands[k] = minus;
            } else if constexpr (S == summing::pairs) {
                const word_lanes low = to<std::int32_t>(x[2 * k].raw) & 0xffff;
                operands[k] = 2 * k + 1 < n_in ? low | to<std::int32_t>(x[2 * k + 1].raw) << 16 : low;
            } else if constexpr (S == summing::narrow && shorts) operands[k] = to<std::int32_t>(x[k].raw) & 0xffff;
            else operands[k] = to<E>(x[k].raw);
        }
        constexpr int whole = n_out / block<S> * block<S>;
        for (int first = 0; first < whole; first += block<S>) {
            outputs<S, block<S>>(operands, weight + long(first) * steps<S>, bias + first, accum + first);
        }
        if constexpr (whole < n_out) {
            outputs<S, n_out - whole>(operands, weight + long(whole) * steps<S>, bias + whole, accum + whole);
        }
    }

    // A product rounded to the accumulator's last bit.
    template <class V> CSIM_FN static V rounded(const V& term) {
        using E = lane_t<V>;
        if constexpr (drop <= 0) return term;
        else {
            constexpr E half = acc.q == AP_TRN ? E(0) : (E(1) << (drop - 1)) - (acc.q == AP_RND_MIN_INF);
            return shift_right(V(term + half), drop);
        }
    }

    template <summing S, int N, class V, class E>
    [[gnu::noinline]] static void outputs(const V* operands, const E* weight, const bias_t* bias, A* accum) {
        V sums[N];
        for (int o = 0; o < N; ++o) sums[o] = V{};
        for (int k = 0; k < steps<S>; ++k) {
            const V operand = operands[k];
#pragma GCC unroll 16
            for (int o = 0; o < N; ++o) {
                const E v = weight[k * N + o];
#ifdef CSIM_COUNTS_BITS
                if constexpr (S == summing::signs) sums[o] += count_ones(operand ^ splat<V>(v));  // signs that agree
                else
#endif
                if constexpr (S == summing::pairs) sums[o] = dot_pairs(sums[o], operand, v);
                else {
                    V term;
                    if constexpr (S == summing::narrow && shorts) term = multiply_shorts(operand, v);
                    else term = operand * v;
                    sums[o] += rounded(term);
                }
            }
        }
        for (int o = 0; o < N; ++o) {
            using R = typename A::element;
            if constexpr (S == summing::signs) sums[o] = sums[o] + sums[o] - std::int32_t(n_in);
            const auto start = typename A::value_type(bias[o]).raw;
            accum[o] = A::from_raw(wrap<acc.w, acc.s>(shift_left(to<R>(sums[o]), drop < 0 ? -drop : 0) + start));
        }
    }
};

// accum = bias + x * weight if it can be summed faster here than by the caller; false if not.
template <class CONFIG_T, class X, class A>
[[gnu::always_inline]] inline bool try_matvec(const X* x, const typename CONFIG_T::weight_t* weight,
                                              const typename CONFIG_T::bias_t* bias, A* accum) {
    using M = matrix<CONFIG_T, X, A>;
    if constexpr (!M::useful) return false;
    else {
        static const M m(weight);  // a loaded object keeps its weights
        return m.multiply(x, bias, accum);
    }
}

}  // namespace csim

#endif
