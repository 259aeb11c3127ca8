// Choosing a model, and getting one onto this machine.

import {
  CancellationError,
  env,
  ProgressLocation,
  type QuickPickItem,
  QuickPickItemKind,
  Uri,
  window,
} from 'vscode';

import type { Gemma } from '../gemma';
import type { Model } from '../protocol';
import type { Settings } from '../settings';
import { detailOf, size } from './modelText';

interface ModelItem extends QuickPickItem {
  readonly model?: Model;
}

/** Switches to another model, after its download where it is not here yet. */
export async function selectModel(gemma: Gemma, settings: Settings): Promise<void> {
  const model = await pick(gemma, 'The model that completes', () => true);
  if (model !== undefined && (model.installed || (await download(gemma, model)))) {
    await settings.write('model', model.name);
  }
}

/** Downloads a model, and offers to complete with it. */
export async function downloadModel(gemma: Gemma, settings: Settings): Promise<void> {
  const model = await pick(gemma, 'A model to download', (one) => !one.installed);
  if (model === undefined || !(await download(gemma, model))) {
    return;
  }
  const use = 'Complete with It';
  const answer = await window.showInformationMessage(`${model.name} is on this machine now.`, use);
  if (answer === use) {
    await settings.write('model', model.name);
  }
}

async function pick(gemma: Gemma, title: string, wanted: (model: Model) => boolean): Promise<Model | undefined> {
  const items = gemma.request('gemma/models', {}).then(({ current, models }) => {
    const of = (installed: boolean): ModelItem[] =>
      models
        .filter((model) => model.installed === installed && wanted(model))
        .map((model) => itemOf(model, model.name === current));
    return [...headed('On this machine', of(true)), ...headed('To download', of(false))];
  });
  const picked = await window.showQuickPick(items, { title, matchOnDescription: true, matchOnDetail: true });
  return picked?.model;
}

function headed(label: string, items: ModelItem[]): ModelItem[] {
  return items.length === 0 ? [] : [{ label, kind: QuickPickItemKind.Separator }, ...items];
}

function itemOf(model: Model, current: boolean): ModelItem {
  return {
    label: `${current ? '$(check) ' : ''}${model.name}`,
    description: size(model.bytes),
    detail: detailOf(model),
    model,
  };
}

/** True once the model is there. What goes wrong is told. */
async function download(gemma: Gemma, model: Model): Promise<boolean> {
  try {
    await window.withProgress(
      { location: ProgressLocation.Notification, title: `Downloading ${model.name}`, cancellable: true },
      (progress, token) => {
        let percent = 0;
        return gemma.request(
          'gemma/pullModel',
          { name: model.name },
          {
            token,
            onWorkDone: (value) => {
              const now = 'percentage' in value && value.percentage !== undefined ? value.percentage : percent;
              progress.report({ increment: now - percent, message: value.message ?? '' });
              percent = now;
            },
          },
        );
      },
    );
    return true;
  } catch (error) {
    if (!(error instanceof CancellationError)) {
      await tellFailure(model, error instanceof Error ? error.message : String(error));
    }
    return false;
  }
}

async function tellFailure(model: Model, message: string): Promise<void> {
  const open = 'Open Its Page';
  const actions = typeof model.page === 'string' ? [open] : [];
  const answer = await window.showErrorMessage(`${model.name} could not be downloaded. ${message}`, ...actions);
  if (answer === open && typeof model.page === 'string') {
    await env.openExternal(Uri.parse(model.page));
  }
}
