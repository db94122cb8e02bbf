// A network of look-up tables on many samples at once: a plane holds one bit of 512 samples, and logic on planes answers for
// all of them. Tables and wires are data, so one compilation serves every network.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

typedef std::uint64_t plane __attribute__((vector_size(64)));
typedef std::uint64_t lanes8 __attribute__((vector_size(64)));
typedef std::uint64_t word __attribute__((may_alias));
constexpr long samples_of_plane = 512;
constexpr long words_of_plane = samples_of_plane / 64;

// a where s is 1, else b.
[[gnu::always_inline]] inline plane select(const plane &s, const plane &a, const plane &b) {
#ifdef __AVX512F__
    return plane(_mm512_ternarylogic_epi64(__m512i(s), __m512i(a), __m512i(b), 0xca));
#else
    return b ^ (s & (a ^ b));
#endif
}

// The functions of two bits; bit a + 2b of the position is the answer to (a, b). Those at 0 and 15 are constants.
[[gnu::always_inline]] inline void functions_of(const plane &a, const plane &b, plane *f) {
    const plane both = a & b, only_a = a & ~b, only_b = b & ~a, differ = a ^ b;
    f[8] = both, f[2] = only_a, f[4] = only_b;
    f[10] = a, f[12] = b, f[6] = differ, f[14] = a | b;
    f[7] = ~both, f[13] = ~only_a, f[11] = ~only_b;
    f[5] = ~a, f[3] = ~b, f[9] = ~differ, f[1] = ~f[14];
}

// Entries `First` on of a table of six inputs, as a function of the first `Inputs` of them: one of two halves, chosen by the
// last of those; a function of two inputs is one of `f`.
template <int Inputs, int First>
[[gnu::always_inline]] inline plane part_of(std::uint64_t table, const plane *f, const plane *x, const std::uint32_t *wire) {
    if constexpr (Inputs == 2) return f[table >> First & 15];
    else
        return select(x[wire[Inputs - 1]], part_of<Inputs - 1, First + (1 << (Inputs - 1))>(table, f, x, wire),
                      part_of<Inputs - 1, First>(table, f, x, wire));
}

[[gnu::always_inline]] inline plane look_up(std::uint64_t table, plane *f, const plane *x, const std::uint32_t *wire) {
    functions_of(x[wire[0]], x[wire[1]], f);
    return part_of<6, 0>(table, f, x, wire);
}

template <int... I> [[gnu::always_inline]] inline lanes8 shuffled(const lanes8 &v) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(v, v, I...);
#else
    return __builtin_shuffle(v, lanes8{I...});
#endif
}

// Exchanges blocks of `Distance` bits between rows that are `Distance` apart: in two vectors, or in one.
template <int Distance> [[gnu::always_inline]] inline void swap_rows(lanes8 (&v)[8], std::uint64_t mask) {
    constexpr int step = Distance / 8;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        if (i & step) continue;
        const lanes8 t = (v[i] >> Distance ^ v[i + step]) & mask;
        v[i + step] ^= t;
        v[i] ^= t << Distance;
    }
}
template <int Distance, int... Partner> [[gnu::always_inline]] inline void swap_lanes(lanes8 (&v)[8], std::uint64_t mask) {
    const lanes8 kept = lanes8{(Partner & Distance ? mask : ~mask)...};  // the partner of a lower lane is a higher one
    const lanes8 up = lanes8{(Partner & Distance ? std::uint64_t(Distance) : 0)...};
    const lanes8 down = lanes8{(Partner & Distance ? 0 : std::uint64_t(Distance))...};
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = (v[i] & kept) | (shuffled<Partner...>(v[i]) << up >> down & ~kept);
}

// Bit j of word i becomes bit i of word j: blocks of half the size change places, down to single bits.
inline void transpose(std::uint64_t (&block)[64]) {
    lanes8 v[8];
    std::memcpy(v, block, sizeof(block));
    swap_rows<32>(v, 0x00000000ffffffffu);
    swap_rows<16>(v, 0x0000ffff0000ffffu);
    swap_rows<8>(v, 0x00ff00ff00ff00ffu);
    swap_lanes<4, 4, 5, 6, 7, 0, 1, 2, 3>(v, 0x0f0f0f0f0f0f0f0fu);
    swap_lanes<2, 2, 3, 0, 1, 6, 7, 4, 5>(v, 0x3333333333333333u);
    swap_lanes<1, 1, 0, 3, 2, 5, 4, 7, 6>(v, 0x5555555555555555u);
    std::memcpy(block, v, sizeof(block));
}

struct network {
    long inputs;                      // bits of a sample
    long layers;
    const std::int64_t *units;        // of each layer
    const std::uint64_t *tables;      // of all units, one layer after another
    const std::uint32_t *wires;       // six for each unit
    long groups;                      // 0: the answers are bits
    const std::uint64_t *members;     // [groups, words of an answer]: the units of a group

    long outputs() const { return layers ? units[layers - 1] : inputs; }
};

constexpr long words_for(long bits) { return (bits + 63) / 64; }
constexpr long most(long limit, long n) { return n < limit ? n : limit; }

// Samples [count, words] to planes [bits].
void to_planes(const std::uint64_t *samples, long count, long bits, plane *x) {
    const long words = words_for(bits);
    for (long group = 0; group < words_of_plane; ++group) {
        for (long w = 0; w < words; ++w) {
            std::uint64_t block[64] = {};
            const long rows = most(64, count - 64 * group), columns = most(64, bits - 64 * w);
            for (long s = 0; s < rows; ++s) block[s] = samples[(64 * group + s) * words + w];
            transpose(block);
            for (long i = 0; i < columns; ++i) reinterpret_cast<word *>(x + 64 * w + i)[group] = block[i];
        }
    }
}

void to_samples(const plane *y, long count, long bits, std::uint64_t *samples) {
    const long words = words_for(bits);
    for (long group = 0; 64 * group < count; ++group) {
        for (long w = 0; w < words; ++w) {
            std::uint64_t block[64] = {};
            const long rows = most(64, count - 64 * group), columns = most(64, bits - 64 * w);
            for (long i = 0; i < columns; ++i) block[i] = reinterpret_cast<const word *>(y + 64 * w + i)[group];
            transpose(block);
            for (long s = 0; s < rows; ++s) samples[(64 * group + s) * words + w] = block[s];
        }
    }
}

void run_block(const network &net, const std::uint64_t *x, long count, std::uint64_t *bits, std::uint32_t *counts,
               plane *from, plane *to, std::uint64_t *answers) {
    to_planes(x, count, net.inputs, from);
    plane f[16] = {};
    f[15] = ~f[0];
    const std::uint64_t *table = net.tables;
    const std::uint32_t *wire = net.wires;
    for (long layer = 0; layer < net.layers; ++layer) {
        for (long n = 0; n < net.units[layer]; ++n, ++table, wire += 6) to[n] = look_up(*table, f, from, wire);
        std::swap(from, to);
    }
    const long words = words_for(net.outputs());
    to_samples(from, count, net.outputs(), net.groups ? answers : bits);
    for (long s = 0; net.groups && s < count; ++s) {
        for (long g = 0; g < net.groups; ++g) {
            int ones = 0;
            for (long w = 0; w < words; ++w) ones += __builtin_popcountll(answers[s * words + w] & net.members[g * words + w]);
            counts[s * net.groups + g] = std::uint32_t(ones);
        }
    }
}

} // namespace

// x: [samples, words], bit i of a sample in bit i % 64 of word i / 64. Answers go to `counts` [samples, groups], or to `bits`
// where there are no groups.
extern "C" [[gnu::visibility("default")]] int lutnet_run(const network *net, const std::uint64_t *x, long samples,
                                                         std::uint64_t *bits, std::uint32_t *counts, int threads) {
    long widest = net->inputs;
    for (long layer = 0; layer < net->layers; ++layer) widest = net->units[layer] > widest ? net->units[layer] : widest;
    const long in_words = words_for(net->inputs), out_words = words_for(net->outputs());
    std::atomic<long> next{0};
    std::atomic<int> failed{0};
    const auto work = [&] {
        try {
            std::vector<plane> from(widest), to(widest);
            std::vector<std::uint64_t> answers(samples_of_plane * out_words);
            for (long first; (first = next.fetch_add(samples_of_plane)) < samples;) {
                const long count = samples - first < samples_of_plane ? samples - first : samples_of_plane;
                run_block(*net, x + first * in_words, count, bits + (net->groups ? 0 : first * out_words),
                          counts + first * net->groups, from.data(), to.data(), answers.data());
            }
        } catch (...) {  // no memory: nothing may be thrown into the caller, which is not C++
            failed = 1;
        }
    };
    std::vector<std::thread> others;
    try {
        while (int(others.size()) + 1 < threads) others.emplace_back(work);
    } catch (...) {  // the threads there are do the work
    }
    work();
    for (auto &thread : others) thread.join();
    return failed;
}
