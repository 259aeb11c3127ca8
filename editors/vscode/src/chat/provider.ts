// Gemma as a language model for VS Code's own chat and for other extensions, where VS Code has that.

import {
  CancellationError,
  Disposable,
  LanguageModelChatMessageRole,
  LanguageModelDataPart,
  LanguageModelTextPart,
  LanguageModelToolResultPart,
  lm,
  type CancellationToken,
  type LanguageModelChatInformation,
  type LanguageModelChatProvider,
  type LanguageModelChatRequestMessage,
  type LanguageModelResponsePart,
  type Progress,
  type ProvideLanguageModelChatResponseOptions,
} from 'vscode';

import type { Gemma } from '../gemma';
import type { ChatProgress } from '../protocol';
import { questionOf, type Said } from './dialogue';

const VENDOR = 'gemma-ls';

/** Of the context that every model of the family has, what is left beside an answer. */
const INPUT_TOKENS = 7168;
const OUTPUT_TOKENS = 1024;

/** Gemma's vocabularies take about this many characters for a token of code. */
const CHARACTERS_PER_TOKEN = 3;

export function registerProvider(gemma: Gemma, version: string): Disposable {
  if (typeof lm?.registerLanguageModelChatProvider !== 'function') {
    return Disposable.from();
  }
  const registration = lm.registerLanguageModelChatProvider(VENDOR, new GemmaProvider(gemma, version));
  // VS Code asks for the models of a vendor only when somebody has wanted one.
  lm.selectChatModels({ vendor: VENDOR }).then(undefined, (error: unknown) => {
    gemma.log.debug(`VS Code did not take the language model: ${String(error)}`);
  });
  return registration;
}

class GemmaProvider implements LanguageModelChatProvider {
  constructor(
    private readonly gemma: Gemma,
    private readonly version: string,
  ) {}

  provideLanguageModelChatInformation(): LanguageModelChatInformation[] {
    return [
      {
        id: 'gemma',
        name: 'Gemma',
        family: 'gemma',
        version: this.version,
        detail: 'on this machine',
        tooltip: 'The model that gemma-ls runs on this machine',
        maxInputTokens: INPUT_TOKENS,
        maxOutputTokens: OUTPUT_TOKENS,
        // VS Code offers in its chat only models that say they can call tools. Gemma calls none:
        // the tools of a request are left out.
        capabilities: { imageInput: true, toolCalling: true },
      },
    ];
  }

  async provideLanguageModelChatResponse(
    _model: LanguageModelChatInformation,
    messages: readonly LanguageModelChatRequestMessage[],
    _options: ProvideLanguageModelChatResponseOptions,
    progress: Progress<LanguageModelResponsePart>,
    token: CancellationToken,
  ): Promise<void> {
    const { question, history, picture } = questionOf(messages.map(saidIn));
    const chatId = `lm:${crypto.randomUUID()}`;
    const onPartial = (value: ChatProgress): void => {
      if (value.kind === 'text') {
        progress.report(new LanguageModelTextPart(value.text));
      }
    };
    try {
      if (picture) {
        const data = Buffer.from(picture).toString('base64');
        await this.gemma.request('gemma/explainImage', { data, question, name: 'the picture' }, { token, onPartial });
      } else {
        const params = { chatId, question, history, maxTokens: OUTPUT_TOKENS };
        await this.gemma.request('gemma/chat', params, { token, onPartial });
      }
    } catch (error) {
      if (!(error instanceof CancellationError)) {
        throw error;
      }
    } finally {
      if (!picture) {
        forget(this.gemma, chatId);
      }
    }
  }

  /** Close enough to decide what fits: the server says exactly what did not. */
  async provideTokenCount(
    _model: LanguageModelChatInformation,
    text: string | LanguageModelChatRequestMessage,
  ): Promise<number> {
    const whole = typeof text === 'string' ? text : saidIn(text).text;
    return Math.ceil(whole.length / CHARACTERS_PER_TOKEN);
  }
}

/** Every request brings the whole dialogue, so the server need not keep it. */
export function forget(gemma: Gemma, chatId: string): void {
  gemma.request('gemma/forgetChat', { chatId }).catch((error: unknown) => {
    gemma.log.debug(`The server could not forget a chat: ${String(error)}`);
  });
}

function saidIn({ role, content }: LanguageModelChatRequestMessage): Said {
  return {
    role: role === LanguageModelChatMessageRole.Assistant ? 'model' : 'user',
    text: textOf(content),
    pictures: content
      .filter((part) => part instanceof LanguageModelDataPart)
      .filter(({ mimeType }) => mimeType.startsWith('image/'))
      .map(({ data }) => data),
  };
}

function textOf(content: readonly unknown[]): string {
  return content
    .map((part) => {
      if (part instanceof LanguageModelTextPart) {
        return part.value;
      }
      return part instanceof LanguageModelToolResultPart ? textOf(part.content) : '';
    })
    .join('');
}
