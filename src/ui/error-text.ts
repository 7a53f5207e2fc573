import {asBackupError, type BackupError} from '../lib/errors.ts';
import {closest} from './did-you-mean.ts';
import {printableLines} from './format.ts';

/** Anything that was thrown, as `--json` prints it. */
export interface ErrorDocument {
  error: {code: string; exitCode: number; message: string; reason?: string; hint?: string};
}

/** oclif's own errors (a flag it does not know, a missing argument) are usage errors, and say so well enough. */
function isUsageError(error: unknown): error is Error {
  return typeof error === 'object' && error !== null && 'oclif' in error && 'message' in error;
}

function factsOf(error: unknown): Pick<BackupError, 'code' | 'exitCode' | 'message' | 'reason' | 'hint'> {
  if (!isUsageError(error)) return asBackupError(error);
  const message = error.message.replace(/\nSee more help with --help$/, '');
  const hint = `${didYouMeanFlag(error)}See what it takes with --help.`;
  return {code: 'USAGE', exitCode: 2, message, reason: undefined, hint};
}

/** The parts of oclif's error about flags that it does not know. */
interface UnknownFlags {
  flags: string[];
  parse: {input: {flags: Record<string, unknown>}};
}

function didYouMeanFlag(error: Error & Partial<UnknownFlags>): string {
  if (!Array.isArray(error.flags) || !error.parse?.input?.flags) return '';
  const names = Object.keys(error.parse.input.flags).map((name) => `--${name}`);
  const meant = error.flags.flatMap((flag) => closest(String(flag).replace(/=.*/s, ''), names) ?? []);
  return meant.length === 0 ? '' : `Did you mean ${meant.join(' and ')}? `;
}

function linesOf(text: string): string[] {
  return printableLines(text).split('\n');
}

/** The error for `--json`, secrets masked. */
export function errorDocument(error: unknown, mask: (text: string) => string): ErrorDocument {
  const {code, exitCode, message, reason, hint} = factsOf(error);
  return {
    error: {
      code,
      exitCode,
      message: mask(message),
      ...(reason === undefined ? {} : {reason: mask(reason)}),
      ...(hint === undefined ? {} : {hint: mask(hint)}),
    },
  };
}

/** The error for people: what happened, why, what to do now. Long keys are not broken: they are there to be copied. */
export function errorText(error: unknown, mask: (text: string) => string): string {
  const {code, message, reason, hint} = errorDocument(error, mask).error;
  const lines = [`Error: ${linesOf(message).join('\n')}`];
  if (reason) lines.push(...linesOf(reason).map((line) => `  ${line}`));
  if (hint) lines.push(`What to do: ${linesOf(hint).join('\n')}`);
  lines.push(`Code: ${code}`);
  return `${lines.join('\n')}\n`;
}
