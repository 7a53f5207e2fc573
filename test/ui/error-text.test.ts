import {describe, expect, it} from '@jest/globals';
import {BackupError} from '../../src/lib/errors.ts';
import {maskerFor} from '../../src/lib/secret.ts';
import {errorDocument, errorText} from '../../src/ui/error-text.ts';

const plainly = (text: string) => text;
const error = (message: string, reason?: string, hint?: string) =>
  new BackupError(message, {
    code: 'PG_DUMP_FAILED',
    kind: 'postgres',
    ...(reason === undefined ? {} : {reason}),
    ...(hint === undefined ? {} : {hint}),
  });

describe('an error for people', () => {
  it('says what happened, why, what to do, and its code', () => {
    expect(errorText(error('pg_dump failed', 'line one\nline two', 'Run it again.'), plainly)).toBe(
      'Error: pg_dump failed\n  line one\n  line two\nWhat to do: Run it again.\nCode: PG_DUMP_FAILED\n',
    );
    expect(errorText(error('pg_dump failed'), plainly)).toBe('Error: pg_dump failed\nCode: PG_DUMP_FAILED\n');
  });

  it('masks secrets in every part', () => {
    const text = errorText(
      error('a hunter2', 'b hunter2 postgresql://ann:other@db', 'c hunter2'),
      maskerFor(['hunter2']),
    );
    expect(text).not.toMatch(/hunter2|other/);
    expect(text.match(/\[secret\]/g)).toHaveLength(4);
  });

  it('never holds a control character but its own line breaks', () => {
    const text = errorText(error('a\u001b[2J', 'b\r\u009b31m\nc', 'd\u0007\u007f'), plainly);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
    expect(text.split('\n')).toHaveLength(6);
  });

  it('of anything else that was thrown is an unexpected one', () => {
    expect(errorText(new TypeError('x is not a function'), plainly)).toMatch(
      /^Error: Unexpected failure\n {2}x is not a function\n.*report the command/s,
    );
    expect(errorText('just text', plainly)).toMatch(/just text/);
    expect(errorText(undefined, plainly)).toMatch(/Code: UNEXPECTED/);
  });
});

describe('an error for --json', () => {
  it('is one document with code and exit code, secrets masked, without parts that are not there', () => {
    expect(errorDocument(error('a hunter2', 'b hunter2', 'c hunter2'), maskerFor(['hunter2']))).toEqual({
      error: {code: 'PG_DUMP_FAILED', exitCode: 3, message: 'a [secret]', reason: 'b [secret]', hint: 'c [secret]'},
    });
    expect(Object.keys(errorDocument(error('x'), plainly).error)).toEqual(['code', 'exitCode', 'message']);
  });

  it("takes oclif's own errors for usage errors", () => {
    const usage = Object.assign(new Error('Nonexistent flag: --frce\nSee more help with --help'), {oclif: {exit: 2}});
    expect(errorDocument(usage, plainly).error).toEqual({
      code: 'USAGE',
      exitCode: 2,
      message: 'Nonexistent flag: --frce',
      hint: 'See what it takes with --help.',
    });
  });
});
