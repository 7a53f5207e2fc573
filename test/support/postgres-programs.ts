/** Where PostgreSQL's server programs are: PATH, Debian's and Red Hat's versioned folders, Homebrew's. */
import {glob} from 'node:fs/promises';
import path from 'node:path';
import {execa} from 'execa';

export interface PostgresPrograms {
  /** Folder with postgres, initdb, psql and pg_dump. */
  binDirectory: string;
  major: number;
  /** As the server prints it: `15.14`. */
  version: string;
}

/** The oldest major that the project supports. */
const oldestMajor = 13;

const folders = [
  '/usr/lib/postgresql/*/bin',
  '/usr/pgsql-*/bin',
  '/usr/local/pgsql/bin',
  '/opt/homebrew/opt/postgresql@*/bin',
  '/usr/local/opt/postgresql@*/bin',
];

/** The newest on this machine, or the one of this major; undefined where there is none. */
export async function findPostgres(major?: number): Promise<PostgresPrograms | undefined> {
  const found = await findAllPostgres();
  return found.find((programs) => (major === undefined ? programs.major >= oldestMajor : programs.major === major));
}

/** Every installation, newest first. Looked for until there is one, then remembered. */
export async function findAllPostgres(): Promise<PostgresPrograms[]> {
  if (remembered.length === 0) remembered = await search();
  return remembered;
}

let remembered: PostgresPrograms[] = [];

async function search(): Promise<PostgresPrograms[]> {
  const inPath = (process.env.PATH ?? '').split(path.delimiter).filter(path.isAbsolute);
  const candidates = new Set<string>();
  for await (const file of glob([...folders, ...inPath].map((folder) => `${folder}/postgres`))) {
    candidates.add(path.dirname(file));
  }
  const found = await Promise.all([...candidates].map(inspect));
  return found
    .filter((programs) => programs !== undefined)
    .sort((a, b) => b.version.localeCompare(a.version, 'en', {numeric: true}));
}

/** Undefined where initdb or psql is missing: PATH may have links to some of the programs only. */
async function inspect(binDirectory: string): Promise<PostgresPrograms | undefined> {
  const [server, initdb, psql] = await Promise.all(
    ['postgres', 'initdb', 'psql'].map((name) => execa(path.join(binDirectory, name), ['--version'], {reject: false})),
  );
  if (!server || server.failed || initdb?.failed || psql?.failed) return undefined;
  const match = /\(PostgreSQL\) (\d+)(\.\d+)?/.exec(server.stdout);
  if (!match) return undefined;
  return {binDirectory, major: Number(match[1]), version: `${match[1]}${match[2] ?? ''}`};
}
