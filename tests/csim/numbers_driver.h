// Runs the number types over arrays of raw integers, one by one and in packs, for test_numbers.py.
#include <cstdint>
#include <cstring>

#include "lanes.h"

using csim::lanes;
using csim::pack;

// Element i of an array of raw storage integers, as a scalar; or the pack that starts there.
template <class T> T get(const void* raws, long i) {
    T t;
    std::memcpy(&t.raw, static_cast<const char*>(raws) + i * long(sizeof(t.raw)), sizeof(t.raw));
    return t;
}
template <class T> void put(const T& t, void* raws, long i) {
    std::memcpy(static_cast<char*>(raws) + i * long(sizeof(t.raw)), &t.raw, sizeof(t.raw));
}
template <class T> pack<T> get_pack(const void* raws, long i) {
    pack<T> p;
    std::memcpy(&p.raw, static_cast<const char*>(raws) + i * long(sizeof(T)), sizeof(p.raw));
    return p;
}
template <class T> void put(const pack<T>& p, void* raws, long i) {
    std::memcpy(static_cast<char*>(raws) + i * long(sizeof(T)), &p.raw, sizeof(p.raw));
}

template <class T, class A> void assign(const void* a, void* out, void* packed, long n) {
    for (long i = 0; i < n; ++i) put(T(get<A>(a, i)), out, i);
    for (long i = 0; i < n; i += lanes) put(pack<T>(get_pack<A>(a, i)), packed, i);
}

template <class T, class Real> void from_real(const Real* x, void* out, void* packed, long n) {
    for (long i = 0; i < n; ++i) put(T(x[i]), out, i);
    for (long i = 0; i < n; i += lanes) put(pack<T>::load(x + i), packed, i);
}

template <class A, class Real> void to_real(const void* a, Real* out, Real* packed, long n) {
    for (long i = 0; i < n; ++i) out[i] = static_cast<Real>(get<A>(a, i));
    for (long i = 0; i < n; i += lanes) get_pack<A>(a, i).store(packed + i);
}

enum operation { addition, subtraction, product, conjunction, disjunction, exclusive, quotient };

template <operation Op, class X, class Y> auto operate(const X& x, const Y& y) {
    if constexpr (Op == addition) return x + y;
    else if constexpr (Op == subtraction) return x - y;
    else if constexpr (Op == product) return x * y;
    else if constexpr (Op == conjunction) return x & y;
    else if constexpr (Op == disjunction) return x | y;
    else if constexpr (Op == exclusive) return x ^ y;
    else return x / y;
}

// `type` receives the width, the integer bits and the sign of the result.
template <operation Op, class A, class B> void binary(const void* a, const void* b, void* out, void* packed, int* type, long n) {
    using R = decltype(operate<Op>(A(), B()));
    type[0] = R::width;
    type[1] = R::iwidth;
    type[2] = R::sign_flag;
    for (long i = 0; i < n; ++i) put(operate<Op>(get<A>(a, i), get<B>(b, i)), out, i);
    for (long i = 0; i < n; i += lanes) {
        if constexpr (Op != quotient) put(pack<R>(operate<Op>(get_pack<A>(a, i), get_pack<B>(b, i))), packed, i);
        else {  // packs are divided by scalars
            for (int l = 0; l < lanes; ++l) put((get_pack<A>(a, i) / get<B>(b, i + l)).lane(l), packed, i + l);
        }
    }
}

// (a < b) + 2 (a == b) + 4 (a <= b) + 8 (a > b) + 16 (a != b) + 32 (a >= b)
template <class A, class B> void compare(const void* a, const void* b, std::uint8_t* out, std::uint8_t* packed, long n) {
    for (long i = 0; i < n; ++i) {
        const A x = get<A>(a, i);
        const B y = get<B>(b, i);
        out[i] = std::uint8_t((x < y) | (x == y) << 1 | (x <= y) << 2 | (x > y) << 3 | (x != y) << 4 | (x >= y) << 5);
    }
    for (long i = 0; i < n; i += lanes) {
        const pack<A> x = get_pack<A>(a, i);
        const pack<B> y = get_pack<B>(b, i);
        const auto lt = x < y, eq = x == y, le = x <= y, gt = x > y, ne = x != y, ge = x >= y;
        for (int l = 0; l < lanes; ++l) {
            packed[i + l] = std::uint8_t(lt[l] | eq[l] << 1 | le[l] << 2 | gt[l] << 3 | ne[l] << 4 | ge[l] << 5);
        }
    }
}

// T(a + b) and T(a - b): packs take short cuts here.
template <class T, class A, class B> void sums(const void* a, const void* b, void* out, void* packed, long n) {
    const long minus = n;
    for (long i = 0; i < n; ++i) {
        put(T(get<A>(a, i) + get<B>(b, i)), out, i);
        put(T(get<A>(a, i) - get<B>(b, i)), out, minus + i);
    }
    for (long i = 0; i < n; i += lanes) {
        put(pack<T>(get_pack<A>(a, i) + get_pack<B>(b, i)), packed, i);
        put(pack<T>(get_pack<A>(a, i) - get_pack<B>(b, i)), packed, minus + i);
    }
}

// T(c + a * b) with c of type T; in packs the weight b is one scalar for all lanes, the first of its pack.
template <class T, class A, class B> void accumulate(const void* c, const void* a, const void* b, void* out, void* packed, long n) {
    for (long i = 0; i < n; ++i) put(T(get<T>(c, i) + get<A>(a, i) * get<B>(b, i / lanes * lanes)), out, i);
    for (long i = 0; i < n; i += lanes) {
        pack<T> sum = get_pack<T>(c, i);
        sum += get_pack<A>(a, i) * get<B>(b, i);
        put(sum, packed, i);
    }
}

#define CASE_ASSIGN(k, T, A) \
    extern "C" void assign_##k(const void* a, void* out, void* packed, long n) { assign<T, A>(a, out, packed, n); }
#define CASE_REAL(k, T) \
    extern "C" void from_double_##k(const double* x, void* out, void* packed, long n) { from_real<T>(x, out, packed, n); } \
    extern "C" void from_float_##k(const float* x, void* out, void* packed, long n) { from_real<T>(x, out, packed, n); }
#define CASE_TO_REAL(k, A) \
    extern "C" void to_double_##k(const void* a, double* out, double* packed, long n) { to_real<A>(a, out, packed, n); } \
    extern "C" void to_float_##k(const void* a, float* out, float* packed, long n) { to_real<A>(a, out, packed, n); }
#define CASE_BINARY(k, op, A, B) \
    extern "C" void op##_##k(const void* a, const void* b, void* out, void* packed, int* type, long n) { \
        binary<op, A, B>(a, b, out, packed, type, n); \
    }
#define CASE_COMPARE(k, A, B) \
    extern "C" void compare_##k(const void* a, const void* b, std::uint8_t* out, std::uint8_t* packed, long n) { \
        compare<A, B>(a, b, out, packed, n); \
    }
#define CASE_SUMS(k, T, A, B) \
    extern "C" void sums_##k(const void* a, const void* b, void* out, void* packed, long n) { sums<T, A, B>(a, b, out, packed, n); }
#define CASE_ACCUMULATE(k, T, A, B) \
    extern "C" void accumulate_##k(const void* c, const void* a, const void* b, void* out, void* packed, long n) { \
        accumulate<T, A, B>(c, a, b, out, packed, n); \
    }
