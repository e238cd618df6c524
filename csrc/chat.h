// Messages -> prompt tokens, by the model's own chat template (llama.cpp's common/chat).
//
// The template is data from a model file: it is rendered by llama.cpp's own Jinja interpreter, which has no access
// to files or processes, and a failure is an Error, never a crash. That interpreter has no limit on loops or memory: a
// hostile template can keep render() busy for ever, which a model's own process contains. Tools and reasoning parsers
// come through here too.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "params.h"

struct llama_model;

namespace inferno {

class Model;

struct ChatMessage {
    std::string role;
    std::string content;
};

// Thread-safe: render() may be called from several threads at once.
class ChatTemplate {
public:
    // Throws Error(invalid_request, field "model") when the model has no usable template. REQUIRES: `model` outlives it.
    explicit ChatTemplate(const Model & model);
    ~ChatTemplate();

    struct Prompt {
        std::vector<Token>       tokens;
        std::vector<std::string> stop;  // texts that end a turn in this template and are no end-of-text token
    };

    // Throws Error(invalid_request, field "messages") when the template refuses the messages.
    // The spelling of a control token inside a message's content stays text: it never becomes that token. The same
    // holds for the template's other markers (user-defined tokens such as <tool_call>), the assistant's messages aside,
    // which are the model's own words.
    Prompt render(const std::vector<ChatMessage> & messages, bool add_generation_prompt = true) const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace inferno
