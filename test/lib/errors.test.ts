import {readFile} from 'node:fs/promises';
import {describe, expect, it} from '@jest/globals';
import {asBackupError, BackupError, codeOf, exitCodes, interruption, messageOf} from '../../src/lib/errors.ts';

describe('an error of ours', () => {
  it.each([
    ['unexpected', 1],
    ['configuration', 2],
    ['postgres', 3],
    ['storage', 4],
    ['integrity', 5],
    ['verification', 6],
    ['refused', 7],
    ['interrupted', 130],
    ['terminated', 143],
  ] as const)('of the kind %s ends the process with %i', (kind, exitCode) => {
    expect(exitCodes[kind]).toBe(exitCode);
    expect(new BackupError('x', {code: 'UNEXPECTED', kind}).exitCode).toBe(exitCode);
  });

  it('keeps what happened, why, what to do, and the cause', () => {
    const cause = new Error('deep');
    const error = new BackupError('what', {code: 'STORAGE_FAILED', kind: 'storage', reason: 'why', hint: 'do', cause});
    expect(error).toMatchObject({
      message: 'what',
      code: 'STORAGE_FAILED',
      reason: 'why',
      hint: 'do',
      cause,
      name: 'BackupError',
    });
    expect(error).toBeInstanceOf(Error);
    expect(new BackupError('x', {code: 'UNEXPECTED', kind: 'unexpected'})).not.toHaveProperty('cause');
  });

  it('is passed on as it is, and any other becomes an unexpected one', () => {
    const ours = new BackupError('x', {code: 'REFUSED', kind: 'refused'});
    expect(asBackupError(ours)).toBe(ours);
    const cause = new TypeError('undefined is not a function');
    expect(asBackupError(cause)).toMatchObject({code: 'UNEXPECTED', exitCode: 1, reason: cause.message, cause});
    for (const thrown of ['text', 7, null, undefined]) {
      expect(asBackupError(thrown)).toMatchObject({code: 'UNEXPECTED', reason: String(thrown)});
    }
  });
});

describe('an interruption', () => {
  it('is none without a signal, or before it', () => {
    expect(interruption(undefined)).toBeUndefined();
    expect(interruption(new AbortController().signal)).toBeUndefined();
  });

  it("is the signal's own error when that is one of ours, and exit code 130 otherwise", () => {
    const terminated = new BackupError('Terminated', {code: 'INTERRUPTED', kind: 'terminated'});
    expect(interruption(AbortSignal.abort(terminated))).toBe(terminated);
    expect(interruption(AbortSignal.abort())).toMatchObject({code: 'INTERRUPTED', exitCode: 130});
  });
});

describe('what was thrown', () => {
  it('gives its message and code, also when it comes from a module of Node', async () => {
    const error = await readFile('/nonexistent').catch((reason: unknown) => reason);
    expect(messageOf(error)).toMatch(/^ENOENT/);
    expect(codeOf(error)).toBe('ENOENT');
  });

  it('may be anything', () => {
    expect([messageOf('text'), messageOf(null), messageOf(undefined), messageOf({message: 7})]).toEqual([
      'text',
      'null',
      'undefined',
      '7',
    ]);
    expect([codeOf('text'), codeOf(null), codeOf({code: 7}), codeOf({})]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});
