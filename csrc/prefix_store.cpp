#include "prefix_store.h"

#include <algorithm>
#include <cassert>
#include <tuple>

namespace inferno {

namespace {

// Need not be hard to invert: what is found is compared, and salts are kept apart by more than this.
uint64_t hash_of(const Token * tokens, uint64_t salt) {
    uint64_t hash = salt + 0x9e3779b97f4a7c15U;
    for (Position i = 0; i < kBlockTokens; ++i) {
        hash = (hash ^ static_cast<uint32_t>(tokens[i])) * 0xff51afd7ed558ccdU;
        hash ^= hash >> 32;
    }
    return hash;
}

size_t blocks_of(Position n) {
    return (static_cast<size_t>(n) + kBlockTokens - 1) / kBlockTokens;
}

}  // namespace

struct PrefixStore::Block {
    Block *                     before;
    uint64_t                    hash;
    uint64_t                    salt;
    std::vector<Token>          tokens;
    std::shared_ptr<SavedState> rows;
    size_t                      n_after  = 0;
    uint64_t                    last_use = 0;
};

PrefixStore::PrefixStore(size_t limit_bytes, size_t token_bytes)
    : block_bytes_(token_bytes * kBlockTokens), capacity_(block_bytes_ == 0 ? 0 : limit_bytes / block_bytes_) {}

PrefixStore::~PrefixStore() = default;

PrefixStore::Block * PrefixStore::find(const Block * before, const Token * tokens, uint64_t salt) const {
    const auto range = blocks_.equal_range({before, hash_of(tokens, salt)});
    for (auto at = range.first; at != range.second; ++at) {
        Block & block = *at->second;
        if (block.salt == salt && std::equal(block.tokens.begin(), block.tokens.end(), tokens)) {
            return &block;
        }
    }
    return nullptr;
}

Position PrefixStore::longest(const std::vector<Token> & tokens, Position limit, uint64_t salt) const {
    const Block * block = nullptr;
    Position      n     = 0;
    while (n + kBlockTokens <= limit && (block = find(block, tokens.data() + n, salt)) != nullptr) {
        n += kBlockTokens;
    }
    return n;
}

PrefixStore::Blocks PrefixStore::fetch(const std::vector<Token> & tokens, Position n, uint64_t salt) {
    Blocks  result;
    Block * block = nullptr;
    ++tick_;
    for (Position at = 0; at < n; at += kBlockTokens) {
        block = find(block, tokens.data() + at, salt);
        assert(block != nullptr);
        touch(block);
        result.push_back(block->rows);
    }
    return result;
}

PrefixStore::Missing PrefixStore::add(const std::vector<Token> & tokens, Position n, uint64_t salt) {
    Missing result{0, {}};
    Block * block = nullptr;
    ++tick_;
    for (Position at = 0; at + kBlockTokens <= n; at += kBlockTokens) {
        Block * next = find(block, tokens.data() + at, salt);
        if (next != nullptr) {
            result.from = at + kBlockTokens;
        } else if (has_room() || make_room()) {
            next = insert(block, tokens.data() + at, salt);
            result.blocks.push_back(next->rows);
        } else {
            break;
        }
        touch(next);
        block = next;
    }
    return result;
}

PrefixStore::Block * PrefixStore::insert(Block * before, const Token * tokens, uint64_t salt) {
    auto block    = std::make_unique<Block>();
    block->before = before;
    block->hash   = hash_of(tokens, salt);
    block->salt   = salt;
    block->tokens.assign(tokens, tokens + kBlockTokens);
    block->rows = spare_ ? std::exchange(spare_, nullptr) : std::make_shared<SavedState>();
    if (before != nullptr && before->n_after++ == 0) {
        ends_.erase({before->last_use, before});
    }
    Block * result = block.get();
    blocks_.emplace(Key(before, block->hash), std::move(block));
    return result;
}

void PrefixStore::touch(Block * block) {
    const bool is_end = block->n_after == 0;
    if (is_end) {
        ends_.erase({block->last_use, block});
    }
    block->last_use = tick_;
    if (is_end) {
        ends_.emplace(tick_, block);
    }
}

bool PrefixStore::make_room() {
    if (ends_.empty() || ends_.begin()->first == tick_) {
        return false;
    }
    Block * block = ends_.begin()->second;
    ends_.erase(ends_.begin());
    if (block->before != nullptr && --block->before->n_after == 0) {
        ends_.emplace(block->before->last_use, block->before);
    }
    spare_           = block->rows.use_count() == 1 ? std::move(block->rows) : nullptr;
    const auto range = blocks_.equal_range({block->before, block->hash});
    blocks_.erase(
        std::find_if(range.first, range.second, [&](const auto & entry) { return entry.second.get() == block; }));
    return true;
}

bool PrefixStore::set_aside(Position n) {
    const size_t wanted = blocks_of(n);
    if (wanted + n_aside_ > capacity_) {
        return false;
    }
    ++tick_;
    while (blocks_.size() + n_aside_ + wanted > capacity_) {
        make_room();
    }
    n_aside_ += wanted;
    return true;
}

void PrefixStore::give_back(Position n) {
    n_aside_ -= blocks_of(n);
}

size_t PrefixStore::depth(const Block * block) {
    size_t result = 0;
    for (; block->before != nullptr; block = block->before) {
        ++result;
    }
    return result;
}

std::vector<PrefixStore::Kept> PrefixStore::contents() const {
    std::vector<std::pair<size_t, const Block *>> found;  // with their depths
    for (const auto & entry : blocks_) {
        found.emplace_back(depth(entry.second.get()), entry.second.get());
    }
    // A block is used whenever one that follows it is.
    std::sort(found.begin(), found.end(), [](const auto & a, const auto & b) {
        return std::tuple(b.second->last_use, a.first, a.second->hash) <
               std::tuple(a.second->last_use, b.first, b.second->hash);
    });
    std::vector<Kept>                          result;
    std::unordered_map<const Block *, int64_t> numbers{{nullptr, -1}};
    for (const auto & [its_depth, block] : found) {
        const auto before = numbers.find(block->before);
        if (before != numbers.end() && block->rows->size == block_bytes_) {
            numbers.emplace(block, static_cast<int64_t>(result.size()));
            result.push_back({before->second, block->salt, block->tokens, block->rows});
        }
    }
    return result;
}

size_t PrefixStore::put_back(const std::vector<Kept> & blocks) {
    std::vector<Block *> made;
    for (const Kept & kept : blocks) {
        if (made.size() == capacity_) {
            break;
        }
        Block * before = kept.before < 0 ? nullptr : made.at(static_cast<size_t>(kept.before));
        made.push_back(insert(before, kept.tokens.data(), kept.salt));
        made.back()->rows = kept.rows;
    }
    tick_ = made.size();
    for (size_t i = 0; i < made.size(); ++i) {
        made[i]->last_use = tick_ - i;
        if (made[i]->n_after == 0) {
            ends_.emplace(made[i]->last_use, made[i]);
        }
    }
    return made.size();
}

void PrefixStore::clear() {
    blocks_.clear();
    ends_.clear();
}

}  // namespace inferno
