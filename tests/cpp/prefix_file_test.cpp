#include "prefix_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>

#include "error.h"
#include "test.h"

namespace inferno {
namespace {

constexpr size_t   kTokenBytes = 10;
constexpr size_t   kBlockBytes = kTokenBytes * kBlockTokens;
constexpr uint64_t kIdentity   = 0x1234;

class Directory {
public:
    Directory() {
        std::string name = (std::filesystem::temp_directory_path() / "prefixes-XXXXXX").string();
        path             = mkdtemp(name.data());
    }
    ~Directory() { std::filesystem::remove_all(path); }

    std::string path;
};

struct Fixture {
    const Directory  directory;
    const PrefixFile file{directory.path, kIdentity};
    PrefixStore      store{100 * kBlockBytes, kTokenBytes};
};

std::vector<Token> text(int32_t n_blocks, Token first) {
    std::vector<Token> tokens(static_cast<size_t>(n_blocks) * kBlockTokens);
    std::iota(tokens.begin(), tokens.end(), first);
    return tokens;
}

Position longest(const PrefixStore & store, const std::vector<Token> & tokens, uint64_t salt = 0) {
    return store.longest(tokens, static_cast<Position>(tokens.size()), salt);
}

// As the model would: block i of the text that begins with `first` holds first + i.
void add(PrefixStore & store, int32_t n_blocks, Token first, uint64_t salt = 0) {
    const auto missing = store.add(text(n_blocks, first), n_blocks * kBlockTokens, salt);
    for (size_t i = 0; i < missing.blocks.size(); ++i) {
        SavedState & state = *missing.blocks[i];
        state.allocate(kBlockBytes);
        state.n_rows = kBlockTokens;
        std::memset(state.bytes.get(), first + missing.from / kBlockTokens + static_cast<int>(i), kBlockBytes);
    }
}

void check_rows(PrefixStore & store, int32_t n_blocks, Token first, uint64_t salt = 0) {
    const auto blocks = store.fetch(text(n_blocks, first), n_blocks * kBlockTokens, salt);
    for (size_t i = 0; i < blocks.size(); ++i) {
        CHECK_EQ(blocks[i]->size, kBlockBytes);
        CHECK_EQ(blocks[i]->n_rows, kBlockTokens);
        CHECK_EQ(int{blocks[i]->bytes[kBlockBytes - 1]}, first + static_cast<int>(i));
    }
}

std::string read(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string & path, const std::string & bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

TEST(what_was_saved_is_there_again) {
    Fixture fixture;
    auto & [directory, file, store] = fixture;
    add(store, 3, 1);
    add(store, 2, 5, 77);
    CHECK(file.save(store));
    PrefixStore again(100 * kBlockBytes, kTokenBytes);
    CHECK_EQ(file.load(again), size_t{5});
    CHECK_EQ(longest(again, text(3, 1)), 3 * kBlockTokens);
    CHECK_EQ(longest(again, text(2, 5), 77), 2 * kBlockTokens);
    CHECK_EQ(longest(again, text(2, 5)), 0);  // under its salt only
    check_rows(again, 3, 1);
    check_rows(again, 2, 5, 77);
    add(again, 4, 1);  // a store as any other
    CHECK_EQ(longest(again, text(4, 1)), 4 * kBlockTokens);
}

TEST(a_smaller_store_takes_what_was_used_last) {
    Fixture fixture;
    auto & [directory, file, store] = fixture;
    add(store, 3, 1);
    add(store, 3, 5);
    PrefixStore again(4 * kBlockBytes, kTokenBytes);
    CHECK(file.save(store));
    CHECK_EQ(file.load(again), size_t{4});
    CHECK_EQ(longest(again, text(3, 5)), 3 * kBlockTokens);
    CHECK_EQ(longest(again, text(3, 1)), 1 * kBlockTokens);
    add(again, 3, 9);  // what was used last goes last
    CHECK_EQ(longest(again, text(3, 9)), 3 * kBlockTokens);
    CHECK_EQ(longest(again, text(3, 5)), 1 * kBlockTokens);
}

TEST(blocks_without_rows_are_not_saved) {
    Fixture fixture;
    auto & [directory, file, store] = fixture;
    add(store, 3, 1);
    store.fetch(text(2, 1), 2 * kBlockTokens, 0)[1]->allocate(0);  // as if the model had failed
    CHECK(file.save(store));
    PrefixStore again(100 * kBlockBytes, kTokenBytes);
    CHECK_EQ(file.load(again), size_t{1});
}

TEST(a_file_that_is_not_what_was_saved_is_left_alone) {
    Fixture fixture;
    auto & [directory, file, store] = fixture;
    const auto loads = [&](const PrefixFile & from) {
        PrefixStore again(100 * kBlockBytes, kTokenBytes);
        const size_t n = from.load(again);
        CHECK_EQ(again.bytes(), n * kBlockBytes);
        return n;
    };
    CHECK_EQ(loads(file), size_t{0});  // none is there
    add(store, 2, 1);
    CHECK(file.save(store));
    const std::string good = read(file.path());
    CHECK_EQ(loads(file), size_t{2});
    for (size_t at = 0; at < good.size(); at += 7) {
        std::string bad = good;
        bad[at]         = static_cast<char>(bad[at] ^ 1);
        write(file.path(), bad);
        CHECK_EQ(loads(file), size_t{0});
    }
    for (const size_t size : {size_t{0}, size_t{10}, good.size() - 1}) {
        write(file.path(), good.substr(0, size));
        CHECK_EQ(loads(file), size_t{0});
    }
    write(file.path(), good + "x");
    CHECK_EQ(loads(file), size_t{0});
    const PrefixFile other(directory.path, kIdentity + 1);
    write(other.path(), good);
    CHECK_EQ(loads(other), size_t{0});
    write(file.path(), good);
    CHECK_EQ(loads(file), size_t{2});
    PrefixStore of_another_model(100 * kBlockBytes, kTokenBytes + 1);
    CHECK_EQ(file.load(of_another_model), size_t{0});
}

TEST(only_its_owner_reads_and_writes_it) {
    Fixture fixture;
    auto & [directory, file, store] = fixture;
    add(store, 1, 1);
    CHECK(file.save(store));
    struct stat about {};
    CHECK_EQ(stat(file.path().c_str(), &about), 0);
    CHECK_EQ(about.st_mode & 0777u, 0600u);
    chmod(file.path().c_str(), 0620);
    PrefixStore again(100 * kBlockBytes, kTokenBytes);
    CHECK_EQ(file.load(again), size_t{0});
}

TEST(a_file_that_cannot_be_written_leaves_the_one_that_is_there) {
    Fixture fixture;
    auto & [directory, file, store] = fixture;
    add(store, 1, 1);
    CHECK(file.save(store));
    std::filesystem::create_directory(file.path() + ".new");
    add(store, 1, 5);
    CHECK(!file.save(store));
    PrefixStore again(100 * kBlockBytes, kTokenBytes);
    CHECK_EQ(file.load(again), size_t{1});
}

TEST(two_engines_do_not_write_at_once) {
    Fixture fixture;
    auto & [directory, file, store] = fixture;
    add(store, 1, 1);
    const std::string temporary = file.path() + ".new";
    write(temporary, "half of another's");
    const int other = open(temporary.c_str(), O_WRONLY | O_CLOEXEC);
    CHECK_EQ(flock(other, LOCK_EX), 0);
    CHECK(!file.save(store));
    CHECK_EQ(read(temporary), std::string("half of another's"));
    close(other);  // it has died
    CHECK(file.save(store));
    PrefixStore again(100 * kBlockBytes, kTokenBytes);
    CHECK_EQ(file.load(again), size_t{1});
}

TEST(options_that_would_keep_nothing_are_refused) {
    const Directory directory;
    EngineOptions   options;
    prepare_prefix_directory(options);
    CHECK(open_prefix_file("unread", options) == nullptr);
    options.prefix_store_path = std::filesystem::path(directory.path) / "new" / "one";
    prepare_prefix_directory(options);
    CHECK(std::filesystem::is_directory(options.prefix_store_path));
    options.prefix_store_mb = 0;
    CHECK_THROWS(prepare_prefix_directory(options), Error);
    options.prefix_store_mb   = 1;
    options.prefix_store_path = "/proc/none";
    CHECK_THROWS(prepare_prefix_directory(options), Error);
}

}  // namespace
}  // namespace inferno
