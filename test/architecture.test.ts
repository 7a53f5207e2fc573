/** The direction of the layers (docs: DESIGN.md, "The shape of the code"), read from the imports of every source file. */
import {readdirSync, readFileSync} from 'node:fs';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from '@jest/globals';

const root = fileURLToPath(new URL('../src/', import.meta.url));

interface Source {
  /** From src/, as `lib/dump/scanner.ts`. */
  file: string;
  code: string;
  /** Files of ours, from src/. */
  inner: string[];
  /** Packages and modules of Node. */
  outer: string[];
}

/** The code without comments: they may name anything. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');
}

const sources: Source[] = readdirSync(root, {recursive: true, encoding: 'utf8'})
  .filter((file) => file.endsWith('.ts'))
  .map((file) => {
    const code = withoutComments(readFileSync(path.join(root, file), 'utf8'));
    const specifiers = [...code.matchAll(/(?:\bfrom|\bimport|\bimport\()\s*['"]([^'"]+)['"]/g)].map(
      (match) => match[1] ?? '',
    );
    return {
      file,
      code,
      inner: specifiers
        .filter((name) => name.startsWith('.'))
        .map((name) => path.relative(root, path.resolve(root, path.dirname(file), name))),
      outer: specifiers.filter((name) => !name.startsWith('.')),
    };
  });

const lib = sources.filter(({file}) => file.startsWith('lib/'));
const stages = ['dump', 'compress', 'encrypt', 'upload', 'load', 'catalog', 'files', 'scaffold'];
/** What every stage may stand on: streams that know no stage, and how to talk to PostgreSQL. */
const foundation = ['streams', 'postgres'];

const folderOf = (file: string) => /^lib\/([^/]+)\//.exec(file)?.[1];
const isPackage = (name: string, prefix: string) =>
  name === prefix || name.startsWith(`${prefix}/`) || (prefix.endsWith('*') && name.startsWith(prefix.slice(0, -1)));

/** `file -> import` for every import that a rule forbids. */
function innerBreaches(of: readonly Source[], isAllowed: (target: string, source: Source) => boolean): string[] {
  return of.flatMap((source) =>
    source.inner.filter((target) => !isAllowed(target, source)).map((target) => `${source.file} -> ${target}`),
  );
}

function outerBreaches(of: readonly Source[], ...forbidden: string[]): string[] {
  return of.flatMap(({file, outer}) =>
    outer.filter((name) => forbidden.some((prefix) => isPackage(name, prefix))).map((name) => `${file} -> ${name}`),
  );
}

describe('the layers', () => {
  it('are all read by this test', () => {
    expect(sources.length).toBeGreaterThan(40);
    expect(sources.flatMap(({inner}) => inner)).toContain('lib/errors.ts');
    const known = ['operations', ...stages, ...foundation];
    // A new folder has to be given its place in the rules below.
    expect(
      [...new Set(lib.flatMap(({file}) => folderOf(file) ?? []))].filter((folder) => !known.includes(folder)),
    ).toEqual([]);
  });

  it('import files that exist', () => {
    const files = new Set(sources.map(({file}) => file));
    expect(innerBreaches(sources, (target) => files.has(target) || !target.startsWith('lib/'))).toEqual([]);
  });

  it('lib knows nothing above it: an operation can be called by a test or another program', () => {
    expect(innerBreaches(lib, (target) => target.startsWith('lib/'))).toEqual([]);
  });

  it('lib knows no command line framework and no terminal: it tells an observer, and whoever shows it decides how', () => {
    expect(outerBreaches(lib, '@oclif/*', 'oclif', 'listr2', 'node:readline', 'node:tty')).toEqual([]);
  });

  it('lib touches no global of the process: settings come in, errors go out, results are returned', () => {
    const globals = /\bconsole\.|\bprocess\.(env|exit|exitCode|argv|stdout|stderr|stdin|on|once)\b|\bprocess\[/;
    expect(lib.filter(({code}) => globals.test(code)).map(({file}) => file)).toEqual([]);
  });

  it('ui shows what lib says, and knows no oclif: it is tested without a command', () => {
    const ui = sources.filter(({file}) => file.startsWith('ui/'));
    expect(outerBreaches(ui, '@oclif/*', 'oclif')).toEqual([]);
    expect(innerBreaches(ui, (target) => target.startsWith('ui/') || target.startsWith('lib/'))).toEqual([]);
  });

  it('ui starts nothing: of operations and stages it takes types only', () => {
    const ui = sources.filter(({file}) => file.startsWith('ui/'));
    const values = ui.flatMap(({file, code}) =>
      [...code.matchAll(/import (?!type )([^;]*?) from '\.\.\/lib\/([^']+)'/g)]
        .filter(([, , target = '']) => /^(operations|dump|compress|encrypt|upload|load|files|postgres)\//.test(target))
        .map((match) => `${file}: ${match[0]}`),
    );
    expect(values).toEqual([]);
  });

  it('a command calls operations, not stages: decisions belong where they can be tested without a process', () => {
    const commands = sources.filter(({file}) => file.startsWith('commands/'));
    const isStage = (target: string) =>
      ['dump', 'compress', 'encrypt', 'upload', 'load', 'files', 'postgres', 'streams'].includes(
        folderOf(target) ?? '',
      );
    expect(innerBreaches(commands, (target) => !isStage(target) && !target.startsWith('commands/'))).toEqual([]);
  });

  it('nothing imports a command: commands are where the program begins', () => {
    expect(innerBreaches(sources, (target) => !target.startsWith('commands/'))).toEqual([]);
  });

  it('a stage imports no other stage: they meet in an operation only, so each can be read and tested by itself', () => {
    const parts = lib.filter(({file}) => stages.includes(folderOf(file) ?? ''));
    const isAllowed = (target: string, {file}: Source) => {
      const folder = folderOf(target);
      return folder === undefined || folder === folderOf(file) || foundation.includes(folder);
    };
    expect(innerBreaches(parts, isAllowed)).toEqual([]);
  });

  it('the foundation stands on nothing but the files at the root of lib, which stand on no stage', () => {
    const base = lib.filter(({file}) => folderOf(file) === undefined || foundation.includes(folderOf(file) ?? ''));
    const isAllowed = (target: string, {file}: Source) => {
      const folder = folderOf(target);
      if (folder === undefined || folder === folderOf(file)) return true;
      // config.ts reads connection URLs, which are postgres/'s business; a child process is one end of a stream.
      return target === 'lib/postgres/connection.ts' || (folder === 'streams' && folderOf(file) === 'postgres');
    };
    expect(innerBreaches(base, isAllowed)).toEqual([]);
  });

  it('errors stand on nothing at all: everything else throws them', () => {
    expect(sources.find(({file}) => file === 'lib/errors.ts')?.inner).toEqual([]);
  });
});

describe('a library has one home, where its traps are handled', () => {
  it.each<[string, RegExp, string]>([
    ['execa', /^lib\/postgres\/process\.ts$/, 'a pipeline over child.stdout resolves although the child failed'],
    ['listr2', /^ui\/progress\.ts$/, 'it writes to stdout and exits on Ctrl-C unless it is told not to'],
    [
      '@aws-sdk/*',
      /^lib\/upload\/(s3-store|stream-upload|plain-request)\.ts$/,
      'retries, digests and part sizes are set for R2 once',
    ],
    ['@smithy/*', /^lib\/upload\/(s3-store|plain-request)\.ts$/, "it is the SDK's own"],
    ['@aws-crypto/*', /^lib\/encrypt\//, 'what the library does not check is checked beside it'],
    ['@oclif/*', /^(commands\/|base-command\.ts$|flags\.ts$|main\.ts$)/, 'help and flags are for the command line'],
    [
      'node:child_process',
      /^lib\/postgres\/process\.ts$/,
      'children are started in one place, which ends them with us',
    ],
  ])('%s: only %s, because %s', (name, home) => {
    const users = sources
      .filter(({outer}) => outer.some((specifier) => isPackage(specifier, name)))
      .map(({file}) => file);
    expect(users.filter((file) => !home.test(file))).toEqual([]);
    if (name !== '@smithy/*' && name !== 'node:child_process') expect(users.length).toBeGreaterThan(0);
  });
});
