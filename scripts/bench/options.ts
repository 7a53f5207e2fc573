import {parseArgs} from 'node:util';

export interface BenchOptions {
  /** How large the database is: about 4.9 KB of plain dump a patient. */
  patients: number;
  rounds: number;
  /** Also measure memory on a database four times as large, and with files of 5 GB in one and 10,000. */
  large: boolean;
  /** How many small files; each of the large ones has an eighth of it in MB. */
  files: number;
  /** Half of the bench. */
  only: 'database' | 'files' | undefined;
}

/** 560 MB of plain dump. */
const defaultPatients = 115_000;
const defaultFiles = 2000;

export const usage = `npm run bench -- [--patients N] [--files N] [--rounds N] [--large] [--only database|files]
  --patients N  size of the database (default ${defaultPatients}: a plain dump of over 500 MB)
  --rounds N    how often everything is measured, in turn (default 3)
  --files N     number of small files (default ${defaultFiles}; the four large ones have N/8 MB each)
  --large       also measure memory on a database four times as large, with a file of 5 GB and with 10,000 files (some minutes more)
  --only WHAT   database: without the files; files: without the database`;

/** @throws Error for an option that is none */
export function readOptions(args: readonly string[]): BenchOptions | 'help' {
  const {values} = parseArgs({
    args: [...args],
    options: {
      patients: {type: 'string', default: String(defaultPatients)},
      rounds: {type: 'string', default: '3'},
      large: {type: 'boolean', default: false},
      files: {type: 'string', default: String(defaultFiles)},
      only: {type: 'string'},
      help: {type: 'boolean', default: false},
    },
  });
  if (values.help) return 'help';
  return {
    patients: count('--patients', values.patients),
    rounds: count('--rounds', values.rounds),
    large: values.large,
    files: count('--files', values.files),
    only: half(values.only),
  };
}

function count(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new Error(`${name} must be a whole number from 1: it is ${text}`);
}

function half(text: string | undefined): BenchOptions['only'] {
  if (text === undefined || text === 'database' || text === 'files') return text;
  throw new Error(`--only must be database or files: it is ${text}`);
}
