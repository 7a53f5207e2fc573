/** Finding the PostgreSQL client programs: several majors often lie side by side, and not every one will do. */
import {readdir, realpath} from 'node:fs/promises';
import path from 'node:path';
import {BackupError} from '../errors.ts';
import {together} from '../together.ts';
import {execute} from './process.ts';

/** A client program that was found, with its version. */
export interface Tool {
  path: string;
  version: ToolVersion;
}

export interface ToolVersion {
  major: number;
  minor: number;
  /** As the program prints it: `15.14`. */
  text: string;
}

export type ToolName = 'pg_dump' | 'psql' | 'initdb';

/** Reads `pg_dump (PostgreSQL) 15.14 (Debian 15.14-1)`; betas and release candidates count as minor 0. */
export function parseToolVersion(output: string): ToolVersion | undefined {
  const match = /\(PostgreSQL\) (\d+)(?:\.(\d+))?\S*/.exec(output);
  if (!match) return undefined;
  const major = Number(match[1]);
  return {major, minor: Number(match[2] ?? 0), text: match[0].replace('(PostgreSQL) ', '')};
}

/** 15 of `15.14 (Debian 15.14-1)`; NaN of a text that does not begin with a number. */
export function majorOf(version: string): number {
  return Number.parseInt(version, 10);
}

/**
 * The pg_dump for a server: the lowest major that is at least the server's. An older one refuses the server; a newer
 * one writes what may want a newer server to restore.
 */
export function choosePgDump(found: readonly Tool[], serverMajor: number): Tool | undefined {
  return found
    .filter((tool) => tool.version.major >= serverMajor)
    .sort((a, b) => a.version.major - b.version.major || b.version.minor - a.version.minor)[0];
}

/** The psql to restore with: the newest, whose `\restrict` is the most likely to be sound. */
export function choosePsql(found: readonly Tool[]): Tool | undefined {
  return [...found].sort((a, b) => b.version.major - a.version.major || b.version.minor - a.version.minor)[0];
}

/** First minor of each major whose psql knows `\restrict` (CVE-2025-8714); majors from 18 on have it from the start. */
const restrictSince: Readonly<Record<number, number>> = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6};

/** Whether this psql knows `\restrict`, which keeps commands hidden in a dump from being run. */
export function knowsRestrict({major, minor}: ToolVersion): boolean {
  if (major >= 18) return true;
  const since = restrictSince[major];
  return since !== undefined && minor >= since;
}

/** Folders beside PATH where packages put versioned programs; `*` stands for a version. */
const packageFolders = [
  '/usr/lib/postgresql/*/bin',
  '/usr/pgsql-*/bin',
  '/usr/local/pgsql/bin',
  '/opt/homebrew/opt/postgresql@*/bin',
  '/opt/homebrew/opt/libpq/bin',
  '/usr/local/opt/postgresql@*/bin',
  '/usr/local/opt/libpq/bin',
  '/Applications/Postgres.app/Contents/Versions/*/bin',
];

async function expand(pattern: string): Promise<string[]> {
  const star = pattern.indexOf('*');
  if (star < 0) return [pattern];
  const folder = path.dirname(pattern.slice(0, star + 1));
  const [prefix = '', suffix = ''] = pattern.slice(folder.length + 1).split('*');
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => name.startsWith(prefix)).map((name) => path.join(folder, name) + suffix);
}

/**
 * Every copy of a client program on this machine, in no order.
 * @param searchPath the PATH to look through before the folders where packages put their versions
 */
export async function findTools(name: ToolName, searchPath: string): Promise<Tool[]> {
  const folders = [...searchPath.split(path.delimiter), ...(await Promise.all(packageFolders.map(expand))).flat()];
  const real = new Set<string>();
  for (const folder of folders) {
    if (!path.isAbsolute(folder)) continue;
    const file = await realpath(path.join(folder, name)).catch(() => undefined);
    // Debian's pg_wrapper chooses a version by its own rules; the programs it chooses from are found by themselves.
    if (file && path.basename(file) !== 'pg_wrapper') real.add(file);
  }
  const tools = await Promise.all(
    [...real].map(async (file): Promise<Tool | undefined> => {
      const output = await execute(file, ['--version'], {}).catch(() => undefined);
      const version = output === undefined ? undefined : parseToolVersion(output);
      return version && {path: file, version};
    }),
  );
  return tools.filter((tool) => tool !== undefined);
}

function list(found: readonly Tool[]): string {
  return found.length === 0 ? 'none' : found.map((tool) => `${tool.version.text} (${tool.path})`).join(', ');
}

/** How to get the client programs of a major (any, if it is not named). */
export function installHint(major: number | undefined): string {
  const version = major === undefined ? '' : `-${major}`;
  const brew = major === undefined ? 'libpq' : `postgresql@${major}`;
  return (
    `Install the client: Debian and Ubuntu: apt-get install postgresql-client${version} ` +
    `(from apt.postgresql.org if your release lacks it); macOS: brew install ${brew}`
  );
}

/**
 * The pg_dump that fits a server.
 * @param serverMajor may be a promise: what there is on this machine is looked for meanwhile; its rejection is passed on
 * @throws BackupError POSTGRES_TOOLS_MISSING, naming the server's major, what was found, and how to install the right one
 */
export async function locatePgDump(serverMajor: number | Promise<number>, searchPath: string): Promise<Tool> {
  const [found, major] = await together([findTools('pg_dump', searchPath), serverMajor]);
  const tool = choosePgDump(found, major);
  if (tool) return tool;
  throw new BackupError(`No pg_dump for PostgreSQL ${major}`, {
    code: 'POSTGRES_TOOLS_MISSING',
    kind: 'postgres',
    reason: `the server is PostgreSQL ${major}, and pg_dump must be at least as new; found: ${list(found)}`,
    hint: installHint(major),
  });
}

/**
 * The psql to use.
 * @throws BackupError POSTGRES_TOOLS_MISSING
 */
export async function locatePsql(searchPath: string): Promise<Tool> {
  const tool = choosePsql(await findTools('psql', searchPath));
  if (tool) return tool;
  throw new BackupError('psql was not found', {
    code: 'POSTGRES_TOOLS_MISSING',
    kind: 'postgres',
    reason: `looked through PATH and the usual folders of PostgreSQL's packages`,
    hint: installHint(undefined),
  });
}
