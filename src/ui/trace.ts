/** Traces for the curious: one line an event, with the time since the start, when DEBUG names `loma-backup`. */
import type {Observer} from '../lib/observer.ts';
import {printable} from './format.ts';

const namespace = 'loma-backup';

/** Whether DEBUG, as the `debug` package reads it (lists, `*`, and `-` before what is left out), names this program. */
export function isTraced(debug: string | undefined): boolean {
  const patterns = (debug ?? '').split(/[\s,]+/).filter(Boolean);
  const names = (pattern: string) => {
    const literal = pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*');
    return [namespace, `${namespace}:steps`].some((name) => new RegExp(`^${literal}$`).test(name));
  };
  const isLeftOut = patterns.some((pattern) => pattern.startsWith('-') && names(pattern.slice(1)));
  return !isLeftOut && patterns.some(names);
}

export class Trace {
  readonly #write: (text: string) => void;
  readonly #mask: (text: string) => string;
  readonly #startedMs: number;

  /** @param mask takes the secrets out of a text */
  constructor(write: (text: string) => void, mask: (text: string) => string) {
    this.#write = write;
    this.#mask = mask;
    this.#startedMs = performance.now();
  }

  line(text: string): void {
    const elapsedMs = Math.round(performance.now() - this.#startedMs);
    this.#write(`${namespace} +${elapsedMs}ms ${printable(this.#mask(text))}\n`);
  }

  /** An observer that writes every event but progress before it hands it on. */
  wrap(observer: Observer): Observer {
    return (event) => {
      if (event.type === 'warning') this.line(`warning: ${event.message}`);
      else if (event.type !== 'progress') {
        const note = 'note' in event && event.note ? `: ${event.note}` : '';
        this.line(`${event.type} ${event.step}${note}`);
      }
      observer(event);
    };
  }
}
