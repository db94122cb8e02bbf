// Matrix products and convolutions whose products are looked up: out = sum of table[x][w], 8-bit codes, 32-bit sums.
//
// The places of an image that a kernel is laid on are taken in blocks. A block's inputs are gathered into a panel, one
// row of `block` bytes for each element of the kernel. For a weight, the products of all codes are one row of the table:
// with AVX-512 VBMI it stands in eight registers, and byte permutations look up 64 products at a time.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#ifndef TABLE_PATH  // 0: portable, 1: AVX2, 2: AVX-512 VBMI; all answer the same
#if defined(__AVX512VBMI__) && defined(__AVX512BW__)
#define TABLE_PATH 2
#elif defined(__AVX2__)
#define TABLE_PATH 1
#else
#define TABLE_PATH 0
#endif
#endif
#if TABLE_PATH
#include <immintrin.h>
#endif

namespace {

constexpr long block = 256;
constexpr long codes = 256;
constexpr long chunk = 32;   // bytes are copied in so many: buffers are larger by as much

// Products by weight and input, both as the bits of a signed byte.
struct tables {
    alignas(64) std::uint8_t bytes[codes][2][codes];  // low bytes, then high ones plus 128: none is negative
    alignas(64) std::int32_t words[codes][codes];
    bool nothing[codes];                              // products by this weight are all 0
};

struct problem {
    const std::int8_t *x;  // [images, height, width, channels]
    const std::int8_t *w;  // [kernel_height, kernel_width, channels / groups, outputs]
    std::int32_t *out;     // [images, out_height, out_width, outputs]
    long images, height, width, channels;
    long kernel_height, kernel_width, outputs, groups;
    long stride_y, stride_x, dilation_y, dilation_x;
    long top, left, padded_height, padded_width;
    long out_height, out_width;

    long places() const { return images * out_height * out_width; }
    long inputs_of_group() const { return channels / groups; }
    long fan_in() const { return kernel_height * kernel_width * inputs_of_group(); }
    long plane() const { return images * padded_height * padded_width; }
};

// Sums of a block are kept in an order that suits the registers: this is the place that sum i belongs to.
constexpr long place_of(long i) {
#if TABLE_PATH == 2
    return i / 64 * 64 + i % 32 * 2 + i / 32 % 2;
#else
    return i;
#endif
}

#if TABLE_PATH == 2

typedef __m512i vec;

inline vec row_part(const std::uint8_t *row, int i) { return _mm512_load_si512(row + 64 * i); }

// Entries of a row of 256 bytes: a permutation finds one of 64 by the low six bits, masks hold what the others say.
struct picker {
    vec x;
    __mmask64 second, third, fourth;

    explicit picker(const std::uint8_t *from) : x(_mm512_loadu_si512(from)) {
        const __mmask64 high = _mm512_movepi8_mask(x), low = _mm512_movepi8_mask(_mm512_slli_epi16(x, 1));
        second = _kandn_mask64(high, low);
        third = _kandn_mask64(low, high);
        fourth = _kand_mask64(low, high);
    }
    vec operator()(const vec (&row)[4]) const {
        vec y = _mm512_permutexvar_epi8(x, row[0]);
        y = _mm512_mask_permutexvar_epi8(y, second, x, row[1]);
        y = _mm512_mask_permutexvar_epi8(y, third, x, row[2]);
        return _mm512_mask_permutexvar_epi8(y, fourth, x, row[3]);
    }
};

// Adds 16-bit sums, made of low and high bytes, to 32-bit ones; `more` is what they exceed the truth by.
inline void widen(std::int32_t *to, vec low, vec high, vec more) {
    for (int half = 0; half < 2; ++half) {
        const vec l = _mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64(low, 1) : _mm512_castsi512_si256(low));
        const vec h = _mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64(high, 1) : _mm512_castsi512_si256(high));
        std::int32_t *place = to + 16 * half;
        _mm512_storeu_si512(place, _mm512_add_epi32(_mm512_loadu_si512(place), _mm512_sub_epi32(_mm512_add_epi32(l, _mm512_slli_epi32(h, 8)), more)));
    }
}

// The first `parts` times 64 places, at most 256 terms: bytes add up in 16 bits. Sums of odd bytes are taken apart; those of even ones are what remains.
template <int parts>
void few_sums(const tables &t, const std::uint8_t *panel, long terms, const std::int8_t *w, long step, std::int32_t *sums) {
    vec all_low[parts], odd_low[parts], all_high[parts], odd_high[parts];
    for (int p = 0; p < parts; ++p) all_low[p] = odd_low[p] = all_high[p] = odd_high[p] = _mm512_setzero_si512();
    int added = 0;
    for (long k = 0; k < terms; ++k) {
        const std::uint8_t weight = std::uint8_t(w[k * step]);
        if (t.nothing[weight]) continue;
        ++added;
        const std::uint8_t *row = t.bytes[weight][0];
        const vec low[4] = {row_part(row, 0), row_part(row, 1), row_part(row, 2), row_part(row, 3)};
        const vec high[4] = {row_part(row, 4), row_part(row, 5), row_part(row, 6), row_part(row, 7)};
#pragma GCC unroll 4
        for (int p = 0; p < parts; ++p) {
            const picker pick(panel + k * block + 64 * p);
            const vec l = pick(low), h = pick(high);
            all_low[p] = _mm512_add_epi16(all_low[p], l);
            odd_low[p] = _mm512_add_epi16(odd_low[p], _mm512_srli_epi16(l, 8));
            all_high[p] = _mm512_add_epi16(all_high[p], h);
            odd_high[p] = _mm512_add_epi16(odd_high[p], _mm512_srli_epi16(h, 8));
        }
    }
    const vec more = _mm512_set1_epi32(added << 15);
#pragma GCC unroll 4
    for (int p = 0; p < parts; ++p) {
        const vec even_low = _mm512_sub_epi16(all_low[p], _mm512_slli_epi16(odd_low[p], 8));
        const vec even_high = _mm512_sub_epi16(all_high[p], _mm512_slli_epi16(odd_high[p], 8));
        widen(sums + 64 * p, even_low, even_high, more);
        widen(sums + 64 * p + 32, odd_low[p], odd_high[p], more);
    }
}

void sums_of(const tables &t, const std::uint8_t *panel, long terms, const std::int8_t *w, long step, long count,
             std::int32_t *sums) {
    constexpr decltype(&few_sums<4>) by_parts[] = {few_sums<1>, few_sums<2>, few_sums<3>, few_sums<4>};
    for (long k = 0; k < terms; k += 256)
        by_parts[(count - 1) / 64](t, panel + k * block, std::min(256L, terms - k), w + k * step, step, sums);
}

#else

void sums_of(const tables &t, const std::uint8_t *panel, long terms, const std::int8_t *w, long step, long count,
             std::int32_t *sums) {
    for (long k = 0; k < terms; ++k, panel += block) {
        const std::uint8_t weight = std::uint8_t(w[k * step]);
        if (t.nothing[weight]) continue;
        const std::int32_t *row = t.words[weight];
#if TABLE_PATH == 1
        for (long i = 0; i < count; i += 8) {
            const __m256i index = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(panel + i)));
            __m256i *to = (__m256i *)(sums + i);
            _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), _mm256_i32gather_epi32(row, index, 4)));
        }
#else
        for (long i = 0; i < count; ++i) sums[i] += row[panel[i]];
#endif
    }
}

#endif

// Inputs as [channels, images, padded_height, padded_width]: neighbours in a row of a panel are then neighbours in memory.
// Around the images stands code 0.
void to_planes(const problem &p, std::uint8_t *planes) {
    constexpr long tile = 64;
    for (long row = 0; row < p.images * p.height; ++row) {
        const long image = row / p.height, y = row % p.height;
        const std::int8_t *from = p.x + row * p.width * p.channels;
        std::uint8_t *to = planes + (image * p.padded_height + y + p.top) * p.padded_width + p.left;
        for (long start = 0; start < p.width; start += tile) {
            const long end = std::min(p.width, start + tile);
            for (long c = 0; c < p.channels; ++c)
                for (long x = start; x < end; ++x) to[c * p.plane() + x] = std::uint8_t(from[x * p.channels + c]);
        }
    }
}

// The row of a panel for one element of the kernel, from where this element lies on the first place of the image. Writes a
// little beyond the row, where the next one comes.
void fill_row(const problem &p, const std::uint8_t *plane, long first, long count, std::uint8_t *row) {
    long x = first % p.out_width, y = first / p.out_width % p.out_height, image = first / p.out_width / p.out_height;
    for (long i = 0; i < count;) {
        const long run = std::min(count - i, p.out_width - x);
        const std::uint8_t *from = plane + (image * p.padded_height + y * p.stride_y) * p.padded_width + x * p.stride_x;
        if (p.stride_x == 1)
            for (long j = 0; j < run; j += chunk) std::memcpy(row + i + j, from + j, chunk);
        else
            for (long j = 0; j < run; ++j) row[i + j] = from[j * p.stride_x];
        i += run;
        x = 0;
        if (++y == p.out_height) y = 0, ++image;
    }
}

void do_block(const problem &p, const tables &t, const std::uint8_t *planes, long group, long first, std::uint8_t *panel) {
    const long count = std::min(block, p.places() - first), inputs = p.inputs_of_group();
    std::uint8_t *row = panel;
    for (long y = 0; y < p.kernel_height; ++y)
        for (long x = 0; x < p.kernel_width; ++x)
            for (long c = 0; c < inputs; ++c, row += block) {
                const long corner = y * p.dilation_y * p.padded_width + x * p.dilation_x;
                fill_row(p, planes + (group * inputs + c) * p.plane() + corner, first, count, row);
            }
    const long outputs = p.outputs / p.groups;
    for (long n = group * outputs; n < (group + 1) * outputs; ++n) {
        alignas(64) std::int32_t sums[block] = {};
        sums_of(t, panel, p.fan_in(), p.w + n, p.outputs, count, sums);
        for (long i = 0; i < block; ++i)
            if (place_of(i) < count) p.out[(first + place_of(i)) * p.outputs + n] = sums[i];
    }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

long table_size() { return long(sizeof(tables)) + 64; }

// `place` has table_size() bytes; returns where in it the tables start. `products`: [256, 256], rows x and columns w from
// -128 to 127.
void *table_prepare(void *place, const std::int32_t *products) {
    std::size_t room = table_size();
    tables *t = new (std::align(64, sizeof(tables), place, room)) tables;
    for (int w = 0; w < codes; ++w) {
        t->nothing[w] = true;
        for (int x = 0; x < codes; ++x) {
            const std::int32_t product = products[(std::int8_t(x) + 128) * codes + std::int8_t(w) + 128];
            t->bytes[w][0][x] = std::uint8_t(product);
            t->bytes[w][1][x] = std::uint8_t((product >> 8) + 128);
            t->words[w][x] = product;
            if (product) t->nothing[w] = false;
        }
    }
    return t;
}

int table_run(const problem *p, const void *prepared, int threads) try {
    const tables &t = *static_cast<const tables *>(prepared);
    std::vector<std::uint8_t> planes(p->channels * p->plane() + chunk);
    to_planes(*p, planes.data());
    const long blocks = (p->places() + block - 1) / block, tasks = blocks * p->groups;
    std::atomic<long> next{0};
    std::atomic<bool> failed{false};
    const auto work = [&]() noexcept {
        const std::unique_ptr<std::uint8_t[]> panel(new (std::nothrow) std::uint8_t[p->fan_in() * block + chunk]());
        if (!panel) failed = true;
        else
            for (long task; (task = next++) < tasks;)
                do_block(*p, t, planes.data(), task / blocks, task % blocks * block, panel.get());
    };
    const long products = p->places() * p->fan_in() * (p->outputs / p->groups) * p->groups;
    const long useful = std::min({long(threads), tasks, 1 + products / 4000000});  // starting one costs as much as a million
    std::vector<std::thread> others;
    for (long i = 1; i < useful; ++i) others.emplace_back(work);
    work();
    for (std::thread &other : others) other.join();
    return failed;
} catch (const std::exception &) {
    return 1;
}

}  // extern "C"
#pragma GCC visibility pop
