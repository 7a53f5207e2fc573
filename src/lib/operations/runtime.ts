import type {Observer} from '../observer.ts';

/** What an operation takes from the process it runs in, so that a test or another program can give it something else. */
export interface Runtime {
  /** The environment of the process: PATH, and the few names that PostgreSQL's programs inherit. */
  environment: Readonly<Record<string, string | undefined>>;
  /** Version of this program. */
  toolVersion: string;
  now: () => Date;
  observer: Observer;
  /** Aborted by Ctrl-C and SIGTERM. */
  signal?: AbortSignal | undefined;
}
