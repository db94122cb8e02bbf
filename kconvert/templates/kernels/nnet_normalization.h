// Normalisation by the mean and variance, or the length, of sets of elements of the sample itself.
#ifndef NNET_NORMALIZATION_H_
#define NNET_NORMALIZATION_H_

#include "nnet_lookup.h"

namespace nnet {

// x is [outer][first][sets][last], a set [first][last].
template <class CONFIG_T> unsigned member(unsigned outer, unsigned set, unsigned i) {
#pragma HLS INLINE
    return ((outer * CONFIG_T::first + i / CONFIG_T::last) * CONFIG_T::sets + set) * CONFIG_T::last + i % CONFIG_T::last;
}

// d = n x - sum(x) and v = n sum(x^2) - sum(x)^2 + added, exact
template <class CONFIG_T> struct centred {
    template <class X, class D, class V, class ADDED>
    static void measure(const X x[], unsigned outer, unsigned set, D d[], V &v, const ADDED added[]) {
#pragma HLS INLINE
        const typename CONFIG_T::members_t n = CONFIG_T::members;
        lanes<typename CONFIG_T::sum_t> sum = typename CONFIG_T::sum_t(0);
        lanes<typename CONFIG_T::squares_t> squares = typename CONFIG_T::squares_t(0);
    Sums:
        for (unsigned i = 0; i < CONFIG_T::members; i++) {
#pragma HLS UNROLL
            const X value = x[member<CONFIG_T>(outer, set, i)];
            sum += value;
            squares += value * value;
        }
    Distances:
        for (unsigned i = 0; i < CONFIG_T::members; i++) {
#pragma HLS UNROLL
            d[i] = x[member<CONFIG_T>(outer, set, i)] * n - sum;
        }
        const V all = squares * n;
        const V spread = all - sum * sum;
        v = spread + added[0];
    }
};

// d = x and v = sum(x^2) + added
template <class CONFIG_T> struct about_zero {
    template <class X, class D, class V, class ADDED>
    static void measure(const X x[], unsigned outer, unsigned set, D d[], V &v, const ADDED added[]) {
#pragma HLS INLINE
        v = added[0];
    Squares:
        for (unsigned i = 0; i < CONFIG_T::members; i++) {
#pragma HLS UNROLL
            const X value = x[member<CONFIG_T>(outer, set, i)];
            v += value * value;
            d[i] = value;
        }
    }
};

// y = d / sqrt(v) * scale + bias
template <class CONFIG_T, class MEASURE, class X, class Y, class... TABLES>
void sample_normalization(const X x[], Y y[], const typename CONFIG_T::scale_t scale[],
                          const typename CONFIG_T::bias_t bias[], const typename CONFIG_T::added_t added[],
                          const TABLES *...tables) {
    typedef typename CONFIG_T::spread_t spread_t;
    typedef typename CONFIG_T::count_t count_t;
Sets:
    for (unsigned p = 0; p < CONFIG_T::outer * CONFIG_T::sets; p++) {
#pragma HLS PIPELINE II=1
        const unsigned outer = p / CONFIG_T::sets, set = p % CONFIG_T::sets;
        lanes<typename CONFIG_T::distance_t> d[CONFIG_T::members];
#pragma HLS ARRAY_PARTITION variable=d complete
        lanes<spread_t> v;
        MEASURE::measure(x, outer, set, d, v, added);
        lanes<count_t> count = count_t(0);
        leading<CONFIG_T::steps - 1, 2>::to_top(v, count);
        const lanes<typename CONFIG_T::pair_t> leading_pair = v * step<typename CONFIG_T::unit_t>();
        const lanes<typename CONFIG_T::table_t> inverse = look_up<CONFIG_T>(leading_pair, tables...);
    Members:
        for (unsigned i = 0; i < CONFIG_T::members; i++) {
#pragma HLS UNROLL
            const lanes<typename CONFIG_T::wide_t> unshifted = d[i];
            const lanes<typename CONFIG_T::wide_t> wide = unshifted << count;
            const lanes<typename CONFIG_T::short_t> scaled = wide * step<typename CONFIG_T::root_unit_t>();
            const lanes<typename CONFIG_T::normal_t> normal = scaled * inverse;
            const unsigned parameter =
                CONFIG_T::by_set ? set * CONFIG_T::last + i % CONFIG_T::last : i;
            y[member<CONFIG_T>(outer, set, i)] = normal * scale[parameter] + bias[parameter];
        }
    }
}

} // namespace nnet

#endif
