import {describe, expect, it} from '@jest/globals';
import {
  choosePgDump,
  choosePsql,
  installHint,
  knowsRestrict,
  parseToolVersion,
  type Tool,
} from '../../../src/lib/postgres/tools.ts';

const tool = (text: string): Tool => {
  const [major = '', minor = '0'] = text.split('.');
  return {path: `/pg/${text}`, version: {major: Number(major), minor: Number(minor), text}};
};
const tools = (...versions: string[]) => versions.map(tool);

describe("a client program's version", () => {
  it.each([
    ['pg_dump (PostgreSQL) 15.14 (Debian 15.14-1.pgdg120+1)\n', {major: 15, minor: 14, text: '15.14'}],
    ['psql (PostgreSQL) 17.6 (Homebrew)', {major: 17, minor: 6, text: '17.6'}],
    ['pg_dump (PostgreSQL) 18beta3', {major: 18, minor: 0, text: '18beta3'}],
    ['pg_dump (PostgreSQL) 19devel', {major: 19, minor: 0, text: '19devel'}],
    ['pg_dump (PostgreSQL) 16rc1 (Ubuntu 16~rc1-1)', {major: 16, minor: 0, text: '16rc1'}],
    ['psql (PostgreSQL) 9.6.24', {major: 9, minor: 6, text: '9.6.24'}],
  ])('is read from %j', (output, version) => {
    expect(parseToolVersion(output)).toEqual(version);
  });

  it.each(['', 'pg_dump: command not found', 'pg_dump 15.14', '(PostgreSQL) unknown'])(
    'is not seen in %j',
    (output) => {
      expect(parseToolVersion(output)).toBeUndefined();
    },
  );
});

describe('the pg_dump for a server', () => {
  it.each([
    [['15.14'], 15, '15.14'],
    [['13.22', '15.14', '17.6'], 14, '15.14'],
    [['17.6', '16.10', '15.14'], 16, '16.10'],
    [['15.3', '15.14', '15.9'], 15, '15.14'],
    [['18', '17.6'], 13, '17.6'],
    [['15.14'], 16, undefined],
    [['15.14'], 14, '15.14'],
    [[], 15, undefined],
  ])('among %j, of major %i, is %s', (found, major, chosen) => {
    expect(choosePgDump(tools(...found), major)?.version.text).toBe(chosen);
  });
});

describe('the psql to restore with', () => {
  it.each([
    [['15.14', '17.6', '16.10'], '17.6'],
    [['17.2', '17.10', '17.9'], '17.10'],
    [['13.1'], '13.1'],
    [[], undefined],
  ])('among %j is %s', (found, chosen) => {
    expect(choosePsql(tools(...found))?.version.text).toBe(chosen);
  });

  it('is chosen without reordering what was found', () => {
    const found = tools('15.14', '17.6');
    choosePsql(found);
    choosePgDump(found, 15);
    expect(found).toEqual(tools('15.14', '17.6'));
  });
});

describe('\\restrict', () => {
  it.each([
    ['12.22', false],
    ['13.21', false],
    ['13.22', true],
    ['14.18', false],
    ['14.19', true],
    ['15.13', false],
    ['15.14', true],
    ['16.9', false],
    ['16.10', true],
    ['17.5', false],
    ['17.6', true],
    ['18.0', true],
    ['19.0', true],
    ['9.6', false],
  ])('in psql %s: %s', (version, known) => {
    expect(knowsRestrict(tool(version).version)).toBe(known);
  });
});

describe('the hint how to install a client', () => {
  it('names the major on Debian and macOS, and none when any will do', () => {
    expect(installHint(17)).toMatch(/postgresql-client-17\b.*postgresql@17/);
    expect(installHint(undefined)).toMatch(/postgresql-client .*libpq/);
  });
});
