/** A reporter of jest that writes docs/RELIABILITY.md at the end of a full run, if every test of it passed. */
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {type RecordedTrial, reliabilityPage, trialsVariable} from './reliability-page.ts';
import {servers} from './sandbox.ts';

const page = path.resolve(import.meta.dirname, '../../docs/RELIABILITY.md');

interface Results {
  numPassedTests: number;
  numFailedTests: number;
  numRuntimeErrorTestSuites: number;
}

export default class ReliabilityReporter {
  readonly #folder = mkdtempSync(path.join(os.tmpdir(), 'loma-test-trials-'));
  readonly #log = path.join(this.#folder, 'trials.jsonl');

  constructor() {
    writeFileSync(this.#log, '');
    // The workers, which are started later, inherit it.
    process.env[trialsVariable] = this.#log;
  }

  /** Before globalTeardown, so that the servers can still be named. */
  onRunComplete(_: unknown, results: Results): void {
    const lines = readFileSync(this.#log, 'utf8').split('\n').filter(Boolean);
    rmSync(this.#folder, {recursive: true});
    if (results.numFailedTests + results.numRuntimeErrorTestSuites > 0 || results.numPassedTests === 0) {
      process.stderr.write('docs/RELIABILITY.md was left as it is: not every test passed.\n');
      return;
    }
    const trials = lines.map((line) => JSON.parse(line) as RecordedTrial);
    if (trials.length === 0) return;
    const {postgres, objects} = servers();
    writeFileSync(
      page,
      reliabilityPage(textOf(page), trials, {
        date: new Date().toISOString().slice(0, 10),
        seed: process.env.LOMA_TEST_SEED ?? '',
        versions: `Node.js ${process.versions.node}, PostgreSQL ${postgres.version}, object server ${objects.kind}`,
      }),
    );
    process.stderr.write(`docs/RELIABILITY.md: ${trials.length} trials\n`);
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
