// `@gemma` in VS Code's own chat, where VS Code has one.

import {
  CancellationError,
  ChatRequestTurn,
  ChatResponseMarkdownPart,
  Disposable,
  Location,
  ThemeIcon,
  Uri,
  chat,
  type CancellationToken,
  type ChatContext,
  type ChatPromptReference,
  type ChatRequest,
  type ChatResponseStream,
  type ChatResult,
} from 'vscode';

import type { Gemma } from '../gemma';
import type { ChatAnswer, ChatKind, ChatProgress, Context, Question } from '../protocol';
import { questionOf, type Said } from './dialogue';
import { linesOf, wording } from './model';
import { isPictureName } from './pictures';
import { editorInUse, fromProtocol, isTalkedAbout, linesIn, nameOf, placeIn } from './places';
import { forget } from './provider';
import { placeOfEditor } from './subject';

const ID = 'gemma.participant';
const KINDS: Readonly<Record<string, ChatKind>> = {
  explain: 'explain',
  document: 'document',
  tests: 'tests',
  fix: 'fix',
};

export function registerParticipant(gemma: Gemma): Disposable {
  if (typeof chat?.createChatParticipant !== 'function') {
    return Disposable.from();
  }
  const participant = chat.createChatParticipant(ID, (request, context, stream, token) =>
    answer(gemma, request, context, stream, token),
  );
  participant.iconPath = new ThemeIcon('sparkle');
  return participant;
}

async function answer(
  gemma: Gemma,
  request: ChatRequest,
  context: ChatContext,
  stream: ChatResponseStream,
  token: CancellationToken,
): Promise<ChatResult> {
  const attached = attachedTo(request.references);
  const onPartial = (value: ChatProgress): void => show(value, stream);
  const chatId = `participant:${crypto.randomUUID()}`;
  try {
    if (attached.picture) {
      const params = { uri: attached.picture.toString(), question: request.prompt, name: nameOf(attached.picture) };
      await gemma.request('gemma/explainImage', params, { token, onPartial });
      return {};
    }
    const kind = KINDS[request.command ?? ''] ?? 'ask';
    const { history } = questionOf([...saidIn(context), { role: 'user', text: '' }]);
    const params = { chatId, kind, question: request.prompt, history, ...attached.place };
    const answered = await gemma.request('gemma/chat', params, { token, onPartial });
    showEnd(answered, attached.others, stream);
    return { metadata: { model: answered.model } };
  } catch (error) {
    if (error instanceof CancellationError) {
      return {};
    }
    return { errorDetails: { message: error instanceof Error ? error.message : String(error) } };
  } finally {
    if (!attached.picture) {
      forget(gemma, chatId);
    }
  }
}

interface Attached {
  readonly place?: Pick<Question, 'textDocument' | 'selection'>;
  readonly picture?: Uri;
  /** What was attached besides, and cannot be shown to the model. */
  readonly others: number;
}

/** A selection says more than a file, and what was attached more than what happens to be open. */
function attachedTo(references: readonly ChatPromptReference[]): Attached {
  const values = references.map(({ value }) => value);
  const uris = values.filter((value) => value instanceof Uri);
  const picture = uris.find(({ path }) => isPictureName(path));
  if (picture) {
    return { picture, others: 0 };
  }
  const selection = values.find((value) => value instanceof Location);
  const file = uris.find(isTalkedAbout);
  if (selection) {
    const others = values.filter((value) => !isSameFile(value, selection.uri)).length;
    return { place: placeIn(selection.uri, selection.range), others };
  }
  if (file) {
    return { place: placeIn(file, undefined), others: values.filter((value) => !isSameFile(value, file)).length };
  }
  const editor = editorInUse();
  return { others: values.length, ...(editor && { place: placeOfEditor(editor) }) };
}

function isSameFile(value: unknown, uri: Uri): boolean {
  const other = value instanceof Location ? value.uri : value;
  return other instanceof Uri && other.toString() === uri.toString();
}

function saidIn({ history }: ChatContext): Said[] {
  return history.map((turn) => {
    if (turn instanceof ChatRequestTurn) {
      const kind = KINDS[turn.command ?? ''] ?? 'ask';
      return { role: 'user', text: wording({ kind, question: turn.prompt }, undefined) };
    }
    const text = turn.response
      .map((part) => (part instanceof ChatResponseMarkdownPart ? part.value.value : ''))
      .join('');
    return { role: 'model', text };
  });
}

function show(value: ChatProgress, stream: ChatResponseStream): void {
  switch (value.kind) {
    case 'context':
      return showContext(value.context, stream);
    case 'step':
      return stream.progress(value.message);
    case 'text':
      return stream.markdown(value.text);
  }
}

function showContext({ uri, lines }: Context, stream: ChatResponseStream): void {
  if (!uri) {
    return;
  }
  const file = Uri.parse(uri);
  if (!lines) {
    return stream.reference(file);
  }
  const range = fromProtocol({
    start: { line: lines.first - 1, character: 0 },
    end: { line: lines.last - 1, character: 0 },
  });
  stream.reference(new Location(file, range));
}

/** What is known only when the answer is whole: named lines, changes, and what to tell the user. */
function showEnd({ context, references, code, notices }: ChatAnswer, others: number, stream: ChatResponseStream): void {
  const { uri } = context;
  const shown = new Set<string>();
  for (const { range } of references) {
    const place = fromProtocol(range);
    const title = linesOf(linesIn(place));
    if (!uri || shown.has(title)) {
      continue;
    }
    stream.markdown(shown.size === 0 ? '\n\nNamed above: ' : ', ');
    stream.anchor(new Location(Uri.parse(uri), place), title);
    shown.add(title);
  }
  for (const { edit } of code) {
    if (edit) {
      stream.button({ command: 'gemma.chat.showChange', title: 'Show as a Change to the File', arguments: [edit] });
    }
  }
  const all = [
    ...notices,
    ...(others > 0 ? ['The model is shown one file at a time: what else was attached was left out.'] : []),
  ];
  for (const notice of all) {
    stream.markdown(`\n\n> ${notice}`);
  }
}
