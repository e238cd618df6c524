#include "chat.h"

#include <common/chat.h>
#include <llama.h>
#include <common/log.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <random>
#include <string_view>

#include "error.h"
#include "model.h"

namespace inferno {

namespace {

constexpr size_t kMaxPromptBytes = size_t{64} << 20;

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};

void check_roles(const std::vector<ChatMessage> & messages) {
    if (messages.empty()) {
        throw Error(ErrorCode::invalid_request, "messages must not be empty.", "messages");
    }
    for (size_t i = 0; i < messages.size(); ++i) {
        if (std::find(kRoles.begin(), kRoles.end(), messages[i].role) == kRoles.end()) {
            const std::string field = "messages[" + std::to_string(i) + "].role";
            throw Error(ErrorCode::invalid_request,
                        field + " must be system, developer, user, assistant or tool.", field);
        }
    }
}

std::vector<std::string> control_spellings(const llama_vocab * vocab) {
    std::vector<std::string> result;
    for (Token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
        const auto attributes = llama_vocab_get_attr(vocab, token);
        if ((attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0) {
            const std::string text = llama_vocab_get_text(vocab, token);
            // A single character, as some vocabularies have among these, is never mistaken for a command.
            if (text.size() > 1) {
                result.push_back(text);
            }
        }
    }
    return result;
}

// Text that cannot occur in a message by accident or on purpose, to find the message again in a rendered prompt.
std::string make_fence() {
    std::random_device source;
    std::string        result = "\xEF\xB7\x90";  // U+FDD0, not a character
    for (int i = 0; i < 4; ++i) {
        result += std::to_string(source()) + "\xEF\xB7\x91";
    }
    return result;
}

}  // namespace

struct ChatTemplate::State {
    const Vocabulary *       vocabulary = nullptr;
    common_chat_templates_ptr templates;
    std::vector<std::string> spellings;  // of the tokens that text must not turn into
    std::mutex               rendering;  // the interpreter's own thread safety is not documented

    bool               mentions_control(std::string_view text) const;
    std::string        fenced(std::string_view text, const std::string & fence) const;
    std::vector<Token> tokenize(std::string_view prompt, const std::string & fence) const;
    common_chat_params apply(const std::vector<ChatMessage> & messages, const std::string & fence,
                             bool add_generation_prompt);
};

bool ChatTemplate::State::mentions_control(std::string_view text) const {
    return std::any_of(spellings.begin(), spellings.end(),
                       [&](const std::string & spelling) { return text.find(spelling) != std::string_view::npos; });
}

// Puts the fence on both sides of every spelling of a control token, the longest where several begin.
std::string ChatTemplate::State::fenced(std::string_view text, const std::string & fence) const {
    std::string out;
    for (size_t i = 0; i < text.size();) {
        size_t length = 0;
        for (const std::string & spelling : spellings) {
            if (spelling.size() > length && text.compare(i, spelling.size(), spelling) == 0) {
                length = spelling.size();
            }
        }
        if (length > 0) {
            out.append(fence).append(text.substr(i, length)).append(fence);
        } else {
            out.push_back(text[i]);
        }
        i += std::max<size_t>(length, 1);
    }
    return out;
}

// Every second part between fences is text that a message spelled like a control token.
std::vector<Token> ChatTemplate::State::tokenize(std::string_view prompt, const std::string & fence) const {
    if (fence.empty()) {
        return vocabulary->tokenize(prompt, true, true);
    }
    std::vector<Token> tokens;
    bool               plain = false;
    for (bool first = true;; first = false) {
        const size_t           end  = prompt.find(fence);
        const std::string_view part = prompt.substr(0, end);
        const auto             more = vocabulary->tokenize(part, first, !plain);
        tokens.insert(tokens.end(), more.begin(), more.end());
        if (end == std::string_view::npos) {
            return tokens;
        }
        prompt.remove_prefix(end + fence.size());
        plain = !plain;
    }
}

common_chat_params ChatTemplate::State::apply(const std::vector<ChatMessage> & messages, const std::string & fence,
                                              bool add_generation_prompt) {
    common_chat_templates_inputs inputs;
    inputs.add_generation_prompt = add_generation_prompt;
    inputs.force_pure_content    = true;  // no tools yet, so no output parser is needed
    for (const ChatMessage & message : messages) {
        common_chat_msg converted;
        converted.role    = message.role;
        converted.content = fence.empty() ? message.content : fenced(message.content, fence);
        inputs.messages.push_back(std::move(converted));
    }
    const std::lock_guard<std::mutex> lock(rendering);
    try {
        return common_chat_templates_apply(templates.get(), inputs);
    } catch (const std::exception &) {
        throw Error(ErrorCode::invalid_request, "The model's chat template does not accept these messages.",
                    "messages");
    }
}

ChatTemplate::ChatTemplate(const Model & model) : state_(std::make_unique<State>()) {
    common_log_set_verbosity_thold(LOG_LEVEL_ERROR);
    if (model.native() == nullptr || model.info().chat_template.empty()) {
        throw Error(ErrorCode::invalid_request, "The model has no chat template.", "model");
    }
    state_->vocabulary = &model.vocabulary();
    state_->spellings  = control_spellings(model.vocabulary().native());
    try {
        state_->templates = common_chat_templates_init(model.native(), "");
    } catch (const std::exception &) {
        throw Error(ErrorCode::invalid_request, "The model's chat template could not be read.", "model");
    }
}

ChatTemplate::~ChatTemplate() = default;

ChatTemplate::Prompt ChatTemplate::render(const std::vector<ChatMessage> & messages, bool add_generation_prompt) const {
    check_roles(messages);
    const bool guard = std::any_of(messages.begin(), messages.end(), [this](const ChatMessage & message) {
        return state_->mentions_control(message.content);
    });
    const std::string        fence  = guard ? make_fence() : "";
    const common_chat_params params = state_->apply(messages, fence, add_generation_prompt);
    if (params.prompt.size() > kMaxPromptBytes) {
        throw Error(ErrorCode::invalid_request, "The rendered messages are too long.", "messages");
    }
    return {state_->tokenize(params.prompt, fence), params.additional_stops};
}

}  // namespace inferno
