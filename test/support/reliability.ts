/** What the full run tried and what happened: tests record it, the reporter makes docs/RELIABILITY.md of it. */
import {appendFileSync} from 'node:fs';
import path from 'node:path';
import {expect} from '@jest/globals';
import {type RecordedTrial, type Trial, trialsVariable} from './reliability-page.ts';

/**
 * Notes one trial for docs/RELIABILITY.md, after its assertions. Trials of the same words are counted, so leave out what
 * is random. Does nothing outside a full run.
 */
export function recordTrial({area, what, outcome}: Trial): void {
  const log = process.env[trialsVariable];
  if (!log) return;
  const file = path.relative(path.resolve(import.meta.dirname, '../..'), expect.getState().testPath ?? '');
  appendFileSync(log, `${JSON.stringify({area, what, outcome, file} satisfies RecordedTrial)}\n`);
}
