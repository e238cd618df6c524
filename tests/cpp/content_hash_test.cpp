#include "content_hash.h"

#include <fstream>
#include <string>

#include "error.h"
#include "test.h"

namespace inferno {
namespace {

uint64_t hash_of(const std::string & bytes, size_t piece) {
    ContentHash hash;
    for (size_t at = 0; at < bytes.size(); at += piece) {
        hash.add(bytes.data() + at, std::min(piece, bytes.size() - at));
    }
    return hash.value();
}

// Of the reference implementation.
TEST(content_hashes_are_xxh64) {
    CHECK_EQ(hash_of("", 1), uint64_t{0xef46db3751d8e999});
    CHECK_EQ(hash_of("a", 1), uint64_t{0xd24ec4f1a98c6e5b});
    CHECK_EQ(hash_of("abc", 3), uint64_t{0x44bc2cf5ad770999});
}

TEST(content_hashes_do_not_depend_on_the_pieces) {
    std::string bytes;
    for (int i = 0; i < 1000; ++i) {
        bytes.push_back(static_cast<char>(i * 7));
    }
    const uint64_t whole = hash_of(bytes, bytes.size());
    for (const size_t piece : {1, 3, 31, 32, 33, 64, 999}) {
        CHECK_EQ(hash_of(bytes, piece), whole);
    }
    bytes[500] ^= 1;
    CHECK(hash_of(bytes, bytes.size()) != whole);
}

TEST(a_file_that_is_not_there_has_no_hash) {
    ContentHash hash;
    CHECK_THROWS(add_file(hash, "does-not-exist"), Error);
}

}  // namespace
}  // namespace inferno
