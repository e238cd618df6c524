#include "chat.h"

#include <common/chat.h>
#include <common/log.h>
#include <llama.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <mutex>
#include <random>
#include <string_view>

#include "error.h"
#include "model.h"

namespace inferno {

namespace {

constexpr size_t kMaxPromptBytes   = size_t{16} << 20;
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr size_t kMaxReasonBytes   = 200;

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};

[[noreturn]] void refuse(const std::string & message, const std::string & field) {
    throw Error(ErrorCode::invalid_request, message, field);
}

void check_roles(const std::vector<ChatMessage> & messages) {
    if (messages.empty()) {
        refuse("messages must not be empty.", "messages");
    }
    for (size_t i = 0; i < messages.size(); ++i) {
        if (std::find(kRoles.begin(), kRoles.end(), messages[i].role) == kRoles.end()) {
            const std::string field = "messages[" + std::to_string(i) + "].role";
            refuse(field + " must be system, developer, user, assistant or tool.", field);
        }
    }
}

// A random text of digits. Nobody can have written it, and no filter of a template (trim, upper, tojson, split, ...)
// changes it.
std::string make_nonce() {
    std::random_device                 source;
    std::uniform_int_distribution<int> digit('0', '9');
    std::string                        result;
    while (result.size() < 40) {
        result.push_back(static_cast<char>(digit(source)));
    }
    return result;
}

bool is_mark(char c) {
    return std::ispunct(static_cast<unsigned char>(c)) != 0;
}

// What a template itself gives as the reason. Only words that stand in the template, for a composed message could
// repeat a part of the prompt.
std::string reason_of(const std::exception & error, const std::string & source) {
    constexpr std::string_view prefix = "Jinja Exception: ";
    const std::string          text   = error.what();
    if (text.rfind(prefix, 0) != 0) {
        return "";
    }
    const std::string reason = text.substr(prefix.size());
    const bool        shown  = !reason.empty() && reason.size() <= kMaxReasonBytes &&
                       std::none_of(reason.begin(), reason.end(),
                                    [](char c) { return std::iscntrl(static_cast<unsigned char>(c)) != 0; }) &&
                       source.find(reason) != std::string::npos;
    return shown ? " It says: " + reason : "";
}

// The tokens that a message's text must never turn into, and how they are spelled.
//
// Control tokens always count. User-defined tokens are mostly ordinary text with a token of its own (blanks, HTML),
// so they count only as the markers that the template itself uses, such as <tool_call>, and not in what the assistant
// said before: there they are the model's own output, and templates look for them to leave reasoning out.
class SpecialTokens {
public:
    SpecialTokens(const llama_vocab * vocab, const std::string & source) {
        for (Token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
            const int         attributes = llama_vocab_get_attr(vocab, token);
            const std::string text       = llama_vocab_get_text(vocab, token);
            const bool        control    = (attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0;
            const bool        marker     = (attributes & LLAMA_TOKEN_ATTR_USER_DEFINED) != 0 && text.size() > 2 &&
                                is_mark(text.front()) && is_mark(text.back()) && source.find(text) != std::string::npos;
            // A single character, as some vocabularies have among these, is never mistaken for a command.
            special_.push_back((control || marker) && text.size() > 1);
            if (special_.back()) {
                by_first_byte_[static_cast<unsigned char>(text[0])].push_back(spellings_.size());
                spellings_.push_back({text, control});
            }
        }
    }

    static constexpr size_t npos = static_cast<size_t>(-1);

    // The longest spelling that begins at text[at], or npos.
    size_t find(std::string_view text, size_t at, bool markers_too) const {
        size_t found = npos;
        for (const size_t i : by_first_byte_[static_cast<unsigned char>(text[at])]) {
            const auto & [spelling, control] = spellings_[i];
            if ((control || markers_too) && text.compare(at, spelling.size(), spelling) == 0 &&
                (found == npos || spelling.size() > spellings_[found].text.size())) {
                found = i;
            }
        }
        return found;
    }

    size_t              size() const { return spellings_.size(); }
    const std::string & spelling(size_t i) const { return spellings_[i].text; }
    bool                contains(Token token) const { return special_[static_cast<size_t>(token)]; }

private:
    struct Spelling {
        std::string text;
        bool        control;
    };
    std::vector<bool>                    special_;  // by token
    std::vector<Spelling>                spellings_;
    std::array<std::vector<size_t>, 256> by_first_byte_;
};

// For one rendering: puts a stand-in (nonce and number) in the place of every spelling of a special token, so that a
// template can neither see it nor move, cut or join it into something else.
class Disguise {
public:
    explicit Disguise(const SpecialTokens & tokens) : tokens_(tokens), nonce_(make_nonce()) {}

    std::string hide(const ChatMessage & message) {
        const std::string & text = message.content;
        std::string         out;
        for (size_t i = 0; i < text.size();) {
            const size_t found = tokens_.find(text, i, message.role != "assistant");
            if (found == SpecialTokens::npos) {
                out.push_back(text[i++]);
            } else {
                const std::string number = std::to_string(found);
                out.append(nonce_).append(kDigits - number.size(), '0').append(number);
                i += tokens_.spelling(found).size();
                used_ = true;
            }
        }
        return out;
    }

    bool used() const { return used_; }

    // Calls `text(part)` and `hidden(spelling)` for the parts of a rendered prompt in order.
    template <class Text, class Hidden>
    void split(std::string_view prompt, Text text, Hidden hidden) const {
        for (;;) {
            const size_t at = prompt.find(nonce_);
            text(prompt.substr(0, at));
            if (at == std::string_view::npos) {
                return;
            }
            prompt.remove_prefix(at + nonce_.size());
            const std::string number(prompt.substr(0, kDigits));
            prompt.remove_prefix(number.size());
            const size_t i = number.empty() ? tokens_.size() : std::strtoull(number.c_str(), nullptr, 10);
            if (i < tokens_.size()) {  // else the template cut the stand-in
                hidden(tokens_.spelling(i));
            }
        }
    }

private:
    static constexpr size_t kDigits = 10;  // enough for any token id

    const SpecialTokens & tokens_;
    const std::string     nonce_;
    bool                  used_ = false;
};

// Tokenises a text in parts that continue each other.
class PartTokenizer {
public:
    PartTokenizer(const Vocabulary & vocabulary, const SpecialTokens & special) : vocabulary_(vocabulary), special_(special) {
        const auto probe = vocabulary.tokenize("a", false, false);
        adds_space_      = !probe.empty() && vocabulary.piece(probe[0]).substr(0, 1) == " ";
    }

    std::vector<Token> tokenize(std::string_view prompt, const Disguise & disguise) const {
        const llama_vocab * vocab = vocabulary_.native();
        std::vector<Token>  tokens;
        if (llama_vocab_get_add_bos(vocab)) {
            tokens.push_back(llama_vocab_bos(vocab));
        }
        const auto append = [&](const std::vector<Token> & more) {
            tokens.insert(tokens.end(), more.begin(), more.end());
        };
        disguise.split(
            prompt, [&](std::string_view text) { append(part(text, true, prompt.data() == text.data())); },
            [&](std::string_view spelling) { append(plain(spelling)); });
        if (llama_vocab_get_add_eos(vocab)) {
            tokens.push_back(llama_vocab_eos(vocab));
        }
        return tokens;
    }

private:
    // SentencePiece models put a space before every text; in the middle of one there must be none, so the text is
    // tokenised behind a line break whose tokens are dropped.
    std::vector<Token> part(std::string_view text, bool parse_special, bool first) const {
        if (!adds_space_ || first || text.empty()) {
            return vocabulary_.tokenize(text, false, parse_special);
        }
        const auto guard  = vocabulary_.tokenize("\n", false, false);
        const auto tokens = vocabulary_.tokenize("\n" + std::string(text), false, parse_special);
        if (tokens.size() < guard.size() || !std::equal(guard.begin(), guard.end(), tokens.begin())) {
            return vocabulary_.tokenize(text, false, parse_special);
        }
        return {tokens.begin() + static_cast<std::ptrdiff_t>(guard.size()), tokens.end()};
    }

    // As text. User-defined tokens are found even when special ones are not parsed, and SentencePiece may join
    // characters into a control token: then character by character.
    std::vector<Token> plain(std::string_view spelling) const {
        const auto whole = part(spelling, false, false);
        if (std::none_of(whole.begin(), whole.end(), [this](Token token) { return special_.contains(token); })) {
            return whole;
        }
        std::vector<Token> tokens;
        while (!spelling.empty()) {
            size_t length = 1;
            while (length < spelling.size() && (static_cast<unsigned char>(spelling[length]) & 0xC0) == 0x80) {
                ++length;
            }
            const auto more = part(spelling.substr(0, length), false, false);
            tokens.insert(tokens.end(), more.begin(), more.end());
            spelling.remove_prefix(length);
        }
        return tokens;
    }

    const Vocabulary &    vocabulary_;
    const SpecialTokens & special_;
    bool                  adds_space_ = false;
};

}  // namespace

struct ChatTemplate::State {
    explicit State(const Model & model)
        : source(model.info().chat_template), vocabulary(model.vocabulary()), special(vocabulary.native(), source),
          tokenizer(vocabulary, special) {}

    common_chat_params apply(const common_chat_templates_inputs & inputs);

    const std::string         source;
    const Vocabulary &        vocabulary;
    const SpecialTokens       special;
    const PartTokenizer       tokenizer;
    common_chat_templates_ptr templates;
    std::mutex                rendering;  // llama.cpp does not say that its interpreter may run twice at once
};

common_chat_params ChatTemplate::State::apply(const common_chat_templates_inputs & inputs) {
    const char * const                fixed = "The model's chat template does not accept these messages.";
    const std::lock_guard<std::mutex> lock(rendering);
    try {
        return common_chat_templates_apply(templates.get(), inputs);
    } catch (const std::exception & error) {
        refuse(fixed + reason_of(error, source), "messages");
    } catch (...) {  // a stray {% break %} is thrown as a type of its own
        refuse(fixed, "messages");
    }
}

ChatTemplate::ChatTemplate(const Model & model) {
    common_log_set_verbosity_thold(LOG_LEVEL_ERROR);
    // Without a template of its own llama.cpp would quietly take ChatML, which the model may never have seen.
    if (model.native() == nullptr || model.info().chat_template.empty()) {
        refuse("The model has no chat template.", "model");
    }
    if (model.info().chat_template.size() > kMaxTemplateBytes) {
        refuse("The model's chat template is too long.", "model");
    }
    state_ = std::make_unique<State>(model);
    try {
        state_->templates = common_chat_templates_init(model.native(), "");
    } catch (...) {
        refuse("The model's chat template could not be read.", "model");
    }
}

ChatTemplate::~ChatTemplate() = default;

ChatTemplate::Prompt ChatTemplate::render(const std::vector<ChatMessage> & messages, bool add_generation_prompt) const {
    check_roles(messages);
    Disguise                     disguise(state_->special);
    common_chat_templates_inputs inputs;
    inputs.add_generation_prompt = add_generation_prompt;
    inputs.force_pure_content    = true;  // no tools yet, so no output parser is needed
    for (const ChatMessage & message : messages) {
        common_chat_msg converted;
        converted.role    = message.role;
        converted.content = disguise.hide(message);
        inputs.messages.push_back(std::move(converted));
    }
    const common_chat_params params = state_->apply(inputs);
    if (params.prompt.size() > kMaxPromptBytes) {
        refuse("The rendered messages are too long.", "messages");
    }
    // llama.cpp has cut a BOS or EOS that the template wrote and the vocabulary adds anyway, so none comes twice.
    return {disguise.used() ? state_->tokenizer.tokenize(params.prompt, disguise)
                            : state_->vocabulary.tokenize(params.prompt, true, true),
            params.additional_stops};
}

}  // namespace inferno
