import {parseArgs} from 'node:util';

export interface BenchOptions {
  /** How large the database is: about 4.9 KB of plain dump a patient. */
  patients: number;
  rounds: number;
  /** Also measure memory on a database four times as large. */
  large: boolean;
}

/** 560 MB of plain dump. */
const defaultPatients = 115_000;

export const usage = `npm run bench -- [--patients N] [--rounds N] [--large]
  --patients N  size of the database (default ${defaultPatients}: a plain dump of over 500 MB)
  --rounds N    how often everything is measured, in turn (default 3)
  --large       also measure memory on a database four times as large (takes some minutes more)`;

/** @throws Error for an option that is none */
export function readOptions(args: readonly string[]): BenchOptions | 'help' {
  const {values} = parseArgs({
    args: [...args],
    options: {
      patients: {type: 'string', default: String(defaultPatients)},
      rounds: {type: 'string', default: '3'},
      large: {type: 'boolean', default: false},
      help: {type: 'boolean', default: false},
    },
  });
  if (values.help) return 'help';
  return {
    patients: count('--patients', values.patients),
    rounds: count('--rounds', values.rounds),
    large: values.large,
  };
}

function count(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new Error(`${name} must be a whole number from 1: it is ${text}`);
}
