/**
 * Shows what an operation is doing: a tree on a terminal, plain lines elsewhere. The one home of listr2. All of it goes
 * to stderr: stdout is for results.
 *
 * Every step (or group of steps that run at the same time) is a small list of its own, one after another, so that
 * between two of them the terminal is free for a question.
 */
import type {Listr, ListrTask} from 'listr2';
import type {Observer, ProgressEvent, Step} from '../lib/observer.ts';
import {formatBytes, formatDuration, printable} from './format.ts';

/** The part of listr2's task that is written to. */
interface ShownTask {
  title: string;
  output: string;
  skip(message?: string): void;
}

interface StepState {
  step: Step;
  startedMs: number;
  bytes: number;
  totalBytes: number | undefined;
  /** How many of how many, where things are counted: files. */
  items: string;
  shownMs: number;
  task: ShownTask | undefined;
  ended: PromiseWithResolvers<{as: 'finished' | 'skipped' | 'failed'; note?: string}>;
}

/** How often progress is written, in milliseconds. */
const terminalIntervalMs = 100;
const logIntervalMs = 10_000;

/** Runs work and shows the steps that it reports. */
export class ProgressView {
  readonly observer: Observer = (event) => this.#observe(event);
  readonly #steps: readonly Step[];
  readonly #output: NodeJS.WriteStream;
  readonly #mask: (text: string) => string;
  readonly #isTree: boolean;
  readonly #states = new Map<string, StepState>();
  readonly #shownGroups = new Set<string>();
  #queue: Promise<void> = Promise.resolve();

  /** @param options.isTree whether to draw a tree that changes in place, as only a terminal can show it */
  constructor(
    steps: readonly Step[],
    output: NodeJS.WriteStream,
    mask: (text: string) => string,
    {isTree = output.isTTY}: {isTree?: boolean} = {},
  ) {
    this.#steps = steps;
    this.#output = output;
    this.#mask = mask;
    this.#isTree = isTree;
  }

  /** Waits until everything reported so far is on the screen: before a question, before the result. */
  async idle(): Promise<void> {
    await this.#queue;
  }

  /** Marks what is under way as failed or finished, and waits until that is shown. */
  async close(outcome: 'finished' | 'failed'): Promise<void> {
    for (const state of this.#states.values()) state.ended.resolve({as: outcome});
    await this.idle();
  }

  #observe(event: ProgressEvent): void {
    switch (event.type) {
      case 'started':
        this.#start(event.step);
        return;
      case 'progress':
        this.#progress(event);
        return;
      case 'warning':
        this.#enqueue(async () => {
          this.#output.write(`Warning: ${printable(this.#mask(event.message))}\n`);
        });
        return;
      default: {
        const state = this.#states.get(event.step) ?? this.#start(event.step);
        state?.ended.resolve({as: event.type, ...('note' in event && event.note ? {note: event.note} : {})});
      }
    }
  }

  #start(id: string): StepState | undefined {
    const known = this.#states.get(id);
    if (known) {
      known.startedMs = performance.now();
      return known;
    }
    const step = this.#steps.find((candidate) => candidate.id === id);
    if (!step) return undefined;
    const {group} = step;
    if (group === undefined) {
      const state = this.#newState(step);
      this.#enqueue(() => this.#show([this.#taskOf(state)]));
      return state;
    }
    if (!this.#shownGroups.has(group)) {
      this.#shownGroups.add(group);
      const members = this.#steps.filter((member) => member.group === group).map((member) => this.#newState(member));
      this.#enqueue(() =>
        this.#show(
          members.map((member) => this.#taskOf(member)),
          group,
        ),
      );
    }
    return this.#states.get(id);
  }

  #newState(step: Step): StepState {
    const state: StepState = {
      step,
      startedMs: performance.now(),
      bytes: 0,
      totalBytes: undefined,
      items: '',
      shownMs: performance.now(),
      task: undefined,
      ended: Promise.withResolvers(),
    };
    this.#states.set(step.id, state);
    return state;
  }

  #enqueue(work: () => Promise<void>): void {
    this.#queue = this.#queue.then(work);
  }

  #progress({step, bytes, totalBytes, items, totalItems}: Extract<ProgressEvent, {type: 'progress'}>): void {
    const state = this.#states.get(step);
    if (!state) return;
    state.bytes = bytes;
    state.totalBytes = totalBytes;
    if (items !== undefined) state.items = `${items}${totalItems === undefined ? '' : ` of ${totalItems}`} files, `;
    const now = performance.now();
    if (!state.task || now - state.shownMs < (this.#isTree ? terminalIntervalMs : logIntervalMs)) return;
    state.shownMs = now;
    state.task.output = `${this.#isTree ? '' : `${state.step.title}: `}${this.#figures(state)}`;
  }

  /** `120 MB of 480 MB, 60 MB/s, 2.0 s`, with `12 of 40 files` before it and `6.0 s left` behind it where they are known. */
  #figures({bytes, totalBytes, items, startedMs}: StepState): string {
    const elapsedMs = performance.now() - startedMs;
    const share = totalBytes ? ` of ${formatBytes(totalBytes)}` : '';
    const rate = `${formatBytes((bytes * 1000) / Math.max(elapsedMs, 1))}/s`;
    const left = totalBytes && bytes > 0 ? (elapsedMs * (totalBytes - bytes)) / bytes : undefined;
    const rest = left === undefined || left <= 0 ? '' : `, ${formatDuration(left)} left`;
    return `${items}${formatBytes(bytes)}${share}, ${rate}, ${formatDuration(elapsedMs)}${rest}`;
  }

  #taskOf(state: StepState): ListrTask {
    return {
      title: state.step.title,
      task: async (_context, task) => {
        const shown: ShownTask = task;
        state.task = shown;
        const {as, note} = await state.ended.promise;
        const figures = state.bytes > 0 ? this.#figures({...state, totalBytes: undefined, items: ''}) : '';
        const text = [printable(this.#mask(note ?? '')), figures].filter(Boolean).join(', ');
        const title = text ? `${state.step.title}: ${text}` : state.step.title;
        if (as === 'skipped') {
          shown.skip(text || state.step.title);
          return;
        }
        shown.title = title;
        if (as === 'failed') throw new Error('see below');
      },
    };
  }

  async #show(tasks: ListrTask[], group?: string): Promise<void> {
    // Loaded when there is something to show: most of what a command waits for at its start are libraries.
    const {Listr, ListrLogger, ProcessOutput} = await import('listr2');
    const logger = new ListrLogger({processOutput: new ProcessOutput(this.#output, this.#output)});
    const children: ListrTask[] =
      group === undefined
        ? tasks
        : [{title: group, task: (_context, task) => failingWithItsSteps(task.newListr(tasks, groupOptions))}];
    const common = {concurrent: false, exitOnError: false, registerSignalListeners: false} as const;
    const list = this.#isTree
      ? new Listr(children, {
          ...common,
          renderer: 'default',
          rendererOptions: {
            logger,
            collapseSubtasks: false,
            showErrorMessage: false,
            collapseErrors: false,
            collapseSkips: true,
          },
        })
      : new Listr(children, {...common, renderer: 'simple', rendererOptions: {logger}});
    await list.run().catch(() => undefined);
  }
}

/** All steps of a group are shown, whichever of them fails. */
const groupOptions = {concurrent: true, exitOnError: false} as const;

/** Of itself, listr2 ticks off a group all of whose steps were tried, whatever became of them. */
function failingWithItsSteps(group: Listr): Listr {
  const run = group.run.bind(group);
  group.run = async (context) => {
    const result = await run(context);
    if (group.tasks.some((step) => step.hasFailed())) throw new Error('see below');
    return result;
  };
  return group;
}
