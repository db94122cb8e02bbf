// Softmax over an axis, from a table of exponentials and a table of reciprocals.
#ifndef NNET_SOFTMAX_H_
#define NNET_SOFTMAX_H_

#include "nnet_lookup.h"

namespace nnet {

// Element `i` of set `p`: x is [..., classes, inner].
template <class CONFIG_T> unsigned of_class(unsigned p, unsigned i) {
#pragma HLS INLINE
    return (p / CONFIG_T::inner * CONFIG_T::classes + i) * CONFIG_T::inner + p % CONFIG_T::inner;
}

template <class CONFIG_T, class X> X largest_of(const X x[], unsigned p) {
#pragma HLS INLINE
    X best = x[of_class<CONFIG_T>(p, 0)];
Classes:
    for (unsigned i = 1; i < CONFIG_T::classes; i++) {
#pragma HLS UNROLL
        best = max(best, x[of_class<CONFIG_T>(p, i)]);
    }
    return best;
}

// 1 / sum for a sum in [1, 2): the reciprocal table is addressed by the fraction.
template <class CONFIG_T> struct reciprocal_of_fraction {
    template <class S> static lanes<typename CONFIG_T::inverse_t> run(const S &sum) {
#pragma HLS INLINE
        const lanes<typename CONFIG_T::inv_table_t> found = CONFIG_T::inv::at(sum - typename CONFIG_T::sum_t(1));
        return found;
    }
};

// 1 / sum for a sum in (0, 2): STEP k halves the distance of a small sum to 1 by a shift of 2^k to the left.
template <class CONFIG_T, int STEP> struct reciprocal_scaled_up {
    template <class S> static lanes<typename CONFIG_T::inverse_t> run(const S &sum) {
#pragma HLS INLINE
        const int bits = 1 << STEP;
        const typename CONFIG_T::sum_t bound = typename CONFIG_T::sum_t(1) >> (bits - 1);
        const auto small = sum < bound;
        const S scaled = select(small, S(sum << bits), sum);
        typedef lanes<typename CONFIG_T::inverse_t> inverse;
        const inverse found = reciprocal_scaled_up<CONFIG_T, STEP - 1>::run(scaled);
        return select(small, inverse(found << bits), found);
    }
};
template <class CONFIG_T> struct reciprocal_scaled_up<CONFIG_T, -1> : reciprocal_of_fraction<CONFIG_T> {};

// 1 / sum for any sum: STEP k brings a large sum nearer to 1 by a shift of 2^k to the right.
template <class CONFIG_T, int STEP> struct reciprocal_scaled_down {
    template <class S> static lanes<typename CONFIG_T::inverse_t> run(const S &sum) {
#pragma HLS INLINE
        const int bits = 1 << STEP;
        const auto large = !((sum >> bits) < typename CONFIG_T::sum_t(1));
        const S scaled = select(large, S(sum >> bits), sum);
        typedef lanes<typename CONFIG_T::inverse_t> inverse;
        const inverse found = reciprocal_scaled_down<CONFIG_T, STEP - 1>::run(scaled);
        return select(large, inverse(found >> bits), found);
    }
};
template <class CONFIG_T>
struct reciprocal_scaled_down<CONFIG_T, -1> : reciprocal_scaled_up<CONFIG_T, CONFIG_T::steps_up - 1> {};

// y = e[i] / sum(e) for class i of set p
template <class CONFIG_T, class E, class Y> void normalise(const E e[], unsigned p, Y y[]) {
#pragma HLS INLINE
    lanes<typename CONFIG_T::sum_t> sum = typename CONFIG_T::sum_t(0);
Sum:
    for (unsigned i = 0; i < CONFIG_T::classes; i++) {
#pragma HLS UNROLL
        sum += e[i];
    }
    const lanes<typename CONFIG_T::inverse_t> inverse =
        reciprocal_scaled_down<CONFIG_T, CONFIG_T::steps_down - 1>::run(sum);
Results:
    for (unsigned i = 0; i < CONFIG_T::classes; i++) {
#pragma HLS UNROLL
        y[of_class<CONFIG_T>(p, i)] = e[i] * inverse;
    }
}

// exp(x - max(x)): the argument of the table is never positive, whatever the range of x.
template <class CONFIG_T, class X, class Y> void softmax_stable(const X x[], Y y[]) {
Positions:
    for (unsigned p = 0; p < CONFIG_T::positions; p++) {
#pragma HLS PIPELINE II=1
        const X top = largest_of<CONFIG_T>(x, p);
        lanes<typename CONFIG_T::exp_table_t> e[CONFIG_T::classes];
#pragma HLS ARRAY_PARTITION variable=e complete
    Exponentials:
        for (unsigned i = 0; i < CONFIG_T::classes; i++) {
#pragma HLS UNROLL
            e[i] = CONFIG_T::exp::at(top - x[of_class<CONFIG_T>(p, i)]);
        }
        normalise<CONFIG_T>(e, p, y);
    }
}

// exp(x) as it is: saves the search for the maximum, and is right while exp(x) fits its type.
template <class CONFIG_T, class X, class Y> void softmax_latency(const X x[], Y y[]) {
Positions:
    for (unsigned p = 0; p < CONFIG_T::positions; p++) {
#pragma HLS PIPELINE II=1
        lanes<typename CONFIG_T::exp_table_t> e[CONFIG_T::classes];
#pragma HLS ARRAY_PARTITION variable=e complete
    Exponentials:
        for (unsigned i = 0; i < CONFIG_T::classes; i++) {
#pragma HLS UNROLL
            e[i] = CONFIG_T::exp::at(x[of_class<CONFIG_T>(p, i)]);
        }
        normalise<CONFIG_T>(e, p, y);
    }
}

// 1 for the first largest input, 0 for the others.
template <class CONFIG_T, class X, class Y> void softmax_argmax(const X x[], Y y[]) {
    const Y zero = typename CONFIG_T::result_t(0);
    const Y one = typename CONFIG_T::result_t(1);
Positions:
    for (unsigned p = 0; p < CONFIG_T::positions; p++) {
#pragma HLS PIPELINE II=1
        const X top = largest_of<CONFIG_T>(x, p);
        Y left = one; // what is still to be given away
    Classes:
        for (unsigned i = 0; i < CONFIG_T::classes; i++) {
#pragma HLS UNROLL
            const auto less = x[of_class<CONFIG_T>(p, i)] < top;
            const Y mine = select(less, zero, left);
            left = select(less, left, zero);
            y[of_class<CONFIG_T>(p, i)] = mine;
        }
    }
}

} // namespace nnet

#endif
