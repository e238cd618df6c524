#include "prefix_file.h"

#include <fcntl.h>
#include <llama-impl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "backends.h"
#include "content_hash.h"
#include "error.h"
#include "tensor_list.h"

namespace inferno {

namespace {

// Changes with the layout of the file, and with our kernels' arithmetic between versions.
constexpr uint64_t kMagic = 0x3130'4652'504e'4649U;

struct Head {
    uint64_t magic;
    uint64_t identity;
    uint64_t block_bytes;
    uint64_t n_blocks;
};

struct BlockHead {
    int64_t  before;
    uint64_t salt;
    Token    tokens[kBlockTokens];
};

struct Close {
    void operator()(std::FILE * file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

// Written and read through the same hash.
class Writer {
public:
    explicit Writer(std::FILE * file) : file_(file) {}

    void add(const void * bytes, size_t size) {
        hash_.add(bytes, size);
        good_ = good_ && std::fwrite(bytes, 1, size, file_) == size;
    }
    bool finish() {
        const uint64_t hash = hash_.value();
        add(&hash, sizeof hash);
        return good_ && std::fflush(file_) == 0;
    }

private:
    std::FILE * file_;
    ContentHash hash_;
    bool        good_ = true;
};

class Reader {
public:
    explicit Reader(std::FILE * file) : file_(file) {}

    bool take(void * bytes, size_t size) {
        const bool good = std::fread(bytes, 1, size, file_) == size;
        hash_.add(bytes, good ? size : 0);
        return good;
    }
    bool finish() {
        const uint64_t expected = hash_.value();
        uint64_t       hash     = 0;
        return std::fread(&hash, sizeof hash, 1, file_) == 1 && hash == expected && std::fgetc(file_) == EOF;
    }

private:
    std::FILE * file_;
    ContentHash hash_;
};

// Null for what others may have written: whoever can change a text's rows can change how it goes on.
File open_own(const std::string & path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0) {
        return nullptr;
    }
    struct stat about {};
    if (::fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode) || about.st_uid != ::geteuid() ||
        (about.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        ::close(descriptor);
        return nullptr;
    }
    return File(::fdopen(descriptor, "rb"));
}

// The file that is to take the place of `path`, empty; null where it cannot be made or another engine is writing it.
File open_new(const std::string & path) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (descriptor < 0) {
        return nullptr;
    }
    struct stat opened {}, there {};
    // Whoever had the lock may have put the file in its place meanwhile: it is not to be written to again.
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 || ::fstat(descriptor, &opened) != 0 ||
        ::stat(path.c_str(), &there) != 0 || opened.st_ino != there.st_ino ||
        ::fchmod(descriptor, S_IRUSR | S_IWUSR) != 0 || ::ftruncate(descriptor, 0) != 0) {
        ::close(descriptor);
        return nullptr;
    }
    return File(::fdopen(descriptor, "wb"));
}

// Empty unless all of the file is as it was written.
std::vector<PrefixStore::Kept> read_blocks(std::FILE * file, uint64_t identity, size_t block_bytes, size_t most) {
    Reader reader(file);
    Head   head{};
    if (!reader.take(&head, sizeof head) || head.magic != kMagic || head.identity != identity ||
        head.block_bytes != block_bytes) {
        return {};
    }
    std::vector<PrefixStore::Kept> result;
    SavedState                     beyond;  // rows that there is no room for
    for (uint64_t i = 0; i < head.n_blocks; ++i) {
        BlockHead    block{};
        auto         rows   = std::make_shared<SavedState>();
        SavedState & target = i < most ? *rows : beyond;
        if (!reader.take(&block, sizeof block) || block.before < -1 || block.before >= static_cast<int64_t>(i)) {
            return {};
        }
        target.allocate(block_bytes);
        target.n_rows = kBlockTokens;
        if (!reader.take(target.bytes.get(), block_bytes)) {
            return {};
        }
        if (i < most) {
            result.push_back({block.before, block.salt, {block.tokens, block.tokens + kBlockTokens}, std::move(rows)});
        }
    }
    return reader.finish() ? std::move(result) : std::vector<PrefixStore::Kept>{};
}

std::string name_of(uint64_t identity) {
    char name[32];
    std::snprintf(name, sizeof name, "%016llx.prefixes", static_cast<unsigned long long>(identity));
    return name;
}

[[noreturn]] void refuse(const std::string & why) {
    throw Error(ErrorCode::invalid_request, "prefix_store_path: " + why, "prefix_store_path");
}

void add_text(ContentHash & hash, const std::string & text) {
    hash.add(text.c_str(), text.size() + 1);
}

// All that the rows of a token depend on, beside the tokens before it.
uint64_t identity_of(const std::string & model_path, const EngineOptions & options) {
    ContentHash hash;
    for (const std::string & part : list_parts(model_path, read_header(model_path))) {
        add_file(hash, part);
    }
    for (const std::string & text : {std::string(INFERNO_MADE_BY), cpu_code(), options.cache_type_k, options.cache_type_v,
                                     options.flash_attention, options.device, options.split_mode,
                                     options.tensor_split}) {
        add_text(hash, text);
    }
    // Some models choose the factors of their positions by the context.
    for (const int32_t number : {options.context_size, options.gpu_layers, options.main_gpu,
                                 int32_t{options.kv_offload}, int32_t{options.cpu_kernels}}) {
        hash.add(&number, sizeof number);
    }
    return hash.value();
}

}  // namespace

PrefixFile::PrefixFile(const std::string & directory, uint64_t identity)
    : path_((std::filesystem::path(directory) / name_of(identity)).string()), identity_(identity) {}

size_t PrefixFile::load(PrefixStore & store) const {
    if (::access(path_.c_str(), F_OK) != 0) {
        return 0;
    }
    const File file   = open_own(path_);
    const auto blocks = file ? read_blocks(file.get(), identity_, store.block_bytes(), store.capacity())
                             : std::vector<PrefixStore::Kept>{};
    if (blocks.empty()) {
        LLAMA_LOG_WARN("%s: %s is not what was written there, and is left alone\n", __func__, path_.c_str());
    }
    return store.put_back(blocks);
}

bool PrefixFile::save(const PrefixStore & store) const {
    const auto blocks = store.contents();
    if (blocks.empty()) {
        return true;
    }
    const std::string temporary = path_ + ".new";
    const File        file      = open_new(temporary);
    if (!file) {
        LLAMA_LOG_WARN("%s: %s could not be written\n", __func__, path_.c_str());
        return false;
    }
    Writer     writer(file.get());
    const Head head{kMagic, identity_, store.block_bytes(), blocks.size()};
    writer.add(&head, sizeof head);
    for (const PrefixStore::Kept & kept : blocks) {
        BlockHead block{kept.before, kept.salt, {}};
        std::copy(kept.tokens.begin(), kept.tokens.end(), block.tokens);
        writer.add(&block, sizeof block);
        writer.add(kept.rows->bytes.get(), kept.rows->size);
    }
    const bool      good = writer.finish();
    std::error_code error;
    if (good) {
        std::filesystem::rename(temporary, path_, error);
    }
    if (!good || error) {
        LLAMA_LOG_WARN("%s: %s could not be written\n", __func__, path_.c_str());
        std::filesystem::remove(temporary, error);
        return false;
    }
    return true;
}

void prepare_prefix_directory(const EngineOptions & options) {
    if (options.prefix_store_path.empty()) {
        return;
    }
    if (!options.prefix_cache || options.prefix_store_mb == 0) {
        refuse("With prefix_cache off or prefix_store_mb = 0 nothing would be kept.");
    }
    std::error_code error;
    if (std::filesystem::create_directories(options.prefix_store_path, error)) {
        std::filesystem::permissions(options.prefix_store_path, std::filesystem::perms::owner_all, error);
    }
    if (error || ::access(options.prefix_store_path.c_str(), R_OK | W_OK | X_OK) != 0) {
        refuse("No directory that can be written to.");
    }
}

std::unique_ptr<PrefixFile> open_prefix_file(const std::string & model_path, const EngineOptions & options) {
    return options.prefix_store_path.empty()
               ? nullptr
               : std::make_unique<PrefixFile>(options.prefix_store_path.string(), identity_of(model_path, options));
}

}  // namespace inferno
