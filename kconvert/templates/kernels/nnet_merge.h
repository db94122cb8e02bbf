// Layers that join tensors.
#ifndef NNET_MERGE_H_
#define NNET_MERGE_H_

#include "nnet_common.h"
#include "nnet_mean.h"

namespace nnet {

// A tensor repeated to a larger shape: element i of that is x[PLACE::place(i)].
template <class PLACE, class X> struct repeated {
    const X *x;

    const X &operator[](unsigned i) const {
#pragma HLS INLINE
        return x[PLACE::place(i)];
    }
};

template <class PLACE, class X> repeated<PLACE, X> repeat(const X x[]) {
#pragma HLS INLINE
    repeated<PLACE, X> all;
    all.x = x;
    return all;
}

// What one more element does to a value so far; the value's type holds every result.
namespace merges {
struct add {
    template <class V, class X> static void into(V &value, const X &x) {
#pragma HLS INLINE
        value += x;
    }
};
struct subtract {
    template <class V, class X> static void into(V &value, const X &x) {
#pragma HLS INLINE
        value -= x;
    }
};
struct maximum {
    template <class V, class X> static void into(V &value, const X &x) {
#pragma HLS INLINE
        value = max(value, V(x));
    }
};
struct minimum {
    template <class V, class X> static void into(V &value, const X &x) {
#pragma HLS INLINE
        value = min(value, V(x));
    }
};
} // namespace merges

template <class OP, class V> void fold(V &, unsigned) {
#pragma HLS INLINE
}

// Element `i` of every tensor, one after the other, into `value`.
template <class OP, class V, class X, class... REST>
void fold(V &value, unsigned i, const X &first, const REST &...rest) {
#pragma HLS INLINE
    OP::into(value, first[i]);
    fold<OP>(value, i, rest...);
}

// y = a OP b OP ..., exact before it is stored
template <class CONFIG_T, class OP, class Y, class X, class... REST>
void merge(Y y[], const X &first, const REST &...rest) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        lanes<typename CONFIG_T::exact_t> value = first[i];
        fold<OP>(value, i, rest...);
        y[i] = value;
    }
}

template <class X> auto product_of(unsigned i, const X &x) {
#pragma HLS INLINE
    return x[i];
}

// Exact, the type grows with every factor.
template <class A, class B, class... REST> auto product_of(unsigned i, const A &a, const B &b, const REST &...rest) {
#pragma HLS INLINE
    return a[i] * product_of(i, b, rest...);
}

// y = a * b * ..., exact before it is stored
template <class CONFIG_T, class Y, class... INPUTS> void multiply(Y y[], const INPUTS &...inputs) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        y[i] = product_of(i, inputs...);
    }
}

// y = (a + b + ...) / n, `reciprocal` being 1 / n
template <class CONFIG_T, class Y, class... INPUTS>
void average(Y y[], const typename CONFIG_T::reciprocal_t reciprocal[], const INPUTS &...inputs) {
#pragma HLS PIPELINE II=1
Elements:
    for (unsigned i = 0; i < CONFIG_T::size; i++) {
#pragma HLS UNROLL
        lanes<typename CONFIG_T::accum_t> accum = typename CONFIG_T::accum_t(0);
        fold<merges::add>(accum, i, inputs...);
        y[i] = mean<CONFIG_T>(accum, reciprocal[0]);
    }
}

// Put a block of `PART` elements at `OFFSET` of every row of `WIDTH` elements.
template <unsigned ROWS, unsigned PART, unsigned OFFSET, unsigned WIDTH, class X, class Y>
void place(const X x[], Y y[]) {
#pragma HLS PIPELINE II=1
Rows:
    for (unsigned row = 0; row < ROWS; row++) {
#pragma HLS UNROLL
    Part:
        for (unsigned i = 0; i < PART; i++) {
#pragma HLS UNROLL
            y[row * WIDTH + OFFSET + i] = x[row * PART + i];
        }
    }
}

} // namespace nnet

#endif
