#include "content_hash.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <vector>

#include "error.h"

namespace inferno {

namespace {

constexpr uint64_t kPrime1 = 0x9e3779b185ebca87U;
constexpr uint64_t kPrime2 = 0xc2b2ae3d27d4eb4fU;
constexpr uint64_t kPrime3 = 0x165667b19e3779f9U;
constexpr uint64_t kPrime4 = 0x85ebca77c2b2ae63U;
constexpr uint64_t kPrime5 = 0x27d4eb2f165667c5U;

constexpr size_t kReadAtOnce = size_t{1} << 20;

uint64_t rotate(uint64_t x, int bits) {
    return (x << bits) | (x >> (64 - bits));
}

template <class Number>
uint64_t number_at(const uint8_t * bytes) {
    Number number;
    std::memcpy(&number, bytes, sizeof number);
    return number;
}

uint64_t round(uint64_t lane, uint64_t input) {
    return rotate(lane + input * kPrime2, 31) * kPrime1;
}

}  // namespace

std::array<uint64_t, 4> ContentHash::start() {
    return {kPrime1 + kPrime2, kPrime2, 0, uint64_t{0} - kPrime1};
}

void ContentHash::take_stripe(const uint8_t * stripe) {
    for (size_t i = 0; i < lanes_.size(); ++i) {
        lanes_[i] = round(lanes_[i], number_at<uint64_t>(stripe + 8 * i));
    }
}

void ContentHash::add(const void * bytes, size_t size) {
    const auto * from   = static_cast<const uint8_t *>(bytes);
    const size_t filled = total_ % kStripe;
    total_ += size;
    if (filled > 0) {
        const size_t more = std::min(size, kStripe - filled);
        std::copy_n(from, more, rest_.begin() + static_cast<std::ptrdiff_t>(filled));
        from += more;
        size -= more;
        if (filled + more < kStripe) {
            return;
        }
        take_stripe(rest_.data());
    }
    for (; size >= kStripe; from += kStripe, size -= kStripe) {
        take_stripe(from);
    }
    std::copy_n(from, size, rest_.begin());
}

uint64_t ContentHash::value() const {
    uint64_t hash = kPrime5;
    if (total_ >= kStripe) {
        hash = rotate(lanes_[0], 1) + rotate(lanes_[1], 7) + rotate(lanes_[2], 12) + rotate(lanes_[3], 18);
        for (const uint64_t lane : lanes_) {
            hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
        }
    }
    hash += total_;
    const uint8_t * at   = rest_.data();
    size_t          left = total_ % kStripe;
    for (; left >= 8; at += 8, left -= 8) {
        hash = rotate(hash ^ round(0, number_at<uint64_t>(at)), 27) * kPrime1 + kPrime4;
    }
    if (left >= 4) {
        hash = rotate(hash ^ number_at<uint32_t>(at) * kPrime1, 23) * kPrime2 + kPrime3;
        at += 4;
        left -= 4;
    }
    for (; left > 0; ++at, --left) {
        hash = rotate(hash ^ *at * kPrime5, 11) * kPrime1;
    }
    hash = (hash ^ hash >> 33) * kPrime2;
    hash = (hash ^ hash >> 29) * kPrime3;
    return hash ^ hash >> 32;
}

void add_file(ContentHash & hash, const std::string & path) {
    std::ifstream     file(path, std::ios::binary);
    std::vector<char> bytes(kReadAtOnce);
    while (file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())) || file.gcount() > 0) {
        hash.add(bytes.data(), static_cast<size_t>(file.gcount()));
    }
    if (!file.eof()) {
        throw Error(ErrorCode::invalid_request, "The model file cannot be read.", "model");
    }
}

}  // namespace inferno
