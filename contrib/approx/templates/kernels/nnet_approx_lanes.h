// The products of an approximate multiplier for all samples of a pack, and their sums.
#ifndef NNET_APPROX_LANES_H_
#define NNET_APPROX_LANES_H_

#include <chrono>

#include "matvec.h"

namespace csim {

// All products of a multiplier, sorted by weight. Of some multipliers the compiler makes vector instructions, which beat
// loads of a table; of others it does not. Both give the same bits: the faster one is used.
template <class MULTIPLIER> class products {
    short of_[65536];
    bool faster_;

    using clock = std::chrono::steady_clock;

    clock::duration fill() {
        const auto start = clock::now();
        for (int w = 0; w < 256; ++w)
            for (int x = 0; x < 256; ++x) of_[w * 256 + x] = short(MULTIPLIER::multiply((signed char)x, (signed char)w));
        return clock::now() - start;
    }
    clock::duration read() const {
        int found[256] = {};
        const auto start = clock::now();
        for (int w = 0; w < 256; ++w)
            for (int x = 0; x < 256; ++x) found[x] += at(found[x], w);
        volatile int kept = found[255];  // or nothing would have to be read
        (void)kept;
        return clock::now() - start;
    }

    products() {
        fill();
        faster_ = read() < fill();
    }

public:
    static const products &all() {
        static const products known;
        return known;
    }
    bool faster() const { return faster_; }
    short at(int x, int w) const { return of_[(w & 255) * 256 + (x & 255)]; }
};

// Call `use` with a function of two codes that gives their product.
template <class MULTIPLIER, class USE> CSIM_FN void with_products(const USE &use) {
    const products<MULTIPLIER> &known = products<MULTIPLIER>::all();
    if (known.faster()) use([&](int x, int w) { return int(known.at(x, w)); });
    else use([](int x, int w) { return MULTIPLIER::multiply(x, w); });
}

template <class MULTIPLIER, class P, class T, class W> P multiply_codes(const pack<T> &x, const W &w) {
    static_assert(T::width == 8 && T::sign_flag && W::width == 8 && W::sign_flag && P::width == 16, "8-bit codes");
    signed char inputs[lanes];
    short found[lanes];
    __builtin_memcpy(inputs, &x.raw, sizeof(inputs));
    const int weight = w.raw;
    with_products<MULTIPLIER>([&](const auto &product) {
        for (int l = 0; l < lanes; ++l) found[l] = short(product(inputs[l], weight));
    });
    P out;
    __builtin_memcpy(&out.raw, found, sizeof(found));
    return out;
}

// Sums of such products in plain integers, several times as fast as one pack after the other. They are exact; the
// accumulator may hold fewer bits if it wraps, but no coarser ones.
template <class CONFIG_T, class X, class A>
    requires requires { typename CONFIG_T::product::multiplier; }
class matrix<CONFIG_T, X, A> {
    using weight_t = typename CONFIG_T::weight_t;
    using bias_t = typename CONFIG_T::bias_t;
    static constexpr fmt acc = A::format;
    static constexpr int n_in = CONFIG_T::n_in, n_out = CONFIG_T::n_out;
    static constexpr int up = acc.f() - mul_fmt(X::format, weight_t::format).f();

    const weight_t *weight_;

public:
    static constexpr bool useful = acc.wraps() && up >= 0 && n_in < 65536;

    explicit matrix(const weight_t *weight) : weight_(weight) {}

    bool multiply(const X *x, const bias_t *bias, A *accum) const {
        with_products<typename CONFIG_T::product::multiplier>([&](const auto &product) { run(product, x, bias, accum); });
        return true;
    }

private:
    template <class PRODUCT> void run(const PRODUCT &product, const X *x, const bias_t *bias, A *accum) const {
        int inputs[n_in][lanes];
        for (int i = 0; i < n_in; ++i)
            for (int l = 0; l < lanes; ++l) inputs[i][l] = x[i].raw[l];
        for (int o = 0; o < n_out; ++o) {
            int sums[lanes] = {};
            for (int i = 0; i < n_in; ++i) {
                const int weight = weight_[long(i) * n_out + o].raw;
                for (int l = 0; l < lanes; ++l) sums[l] += product(inputs[i][l], weight);
            }
            word_lanes total;
            __builtin_memcpy(&total, sums, sizeof(total));
            using R = typename A::element;
            const auto start = typename A::value_type(bias[o]).raw;
            accum[o] = A::from_raw(wrap<acc.w, acc.s>(shift_left(to<R>(total), up) + start));
        }
    }
};

}  // namespace csim

#endif
