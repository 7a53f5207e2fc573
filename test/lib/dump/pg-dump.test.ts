import {describe, expect, it} from '@jest/globals';
import {dumpWarnings} from '../../../src/lib/dump/pg-dump.ts';

describe('what pg_dump remarks', () => {
  it('is a line a remark, with what belongs to it', () => {
    const remarks = `pg_dump: warning: there are circular foreign-key constraints among these tables:
pg_dump: detail: a
pg_dump: detail: b
pg_dump: hint: Consider using a full dump instead of a --data-only dump to avoid this problem.
pg_dump: warning: there are circular foreign-key constraints on this table:
pg_dump: detail: node
pg_dump: hint: Consider using a full dump instead of a --data-only dump to avoid this problem.
`;
    const hint = 'Consider using a full dump instead of a --data-only dump to avoid this problem.';
    expect(dumpWarnings(remarks)).toEqual([
      `pg_dump: there are circular foreign-key constraints among these tables: a b ${hint}`,
      `pg_dump: there are circular foreign-key constraints on this table: node ${hint}`,
    ]);
  });

  it('is told without what the server quotes of rows', () => {
    const remarks = `WARNING:  invalid input syntax for type date: "PHI-123"
DETAIL:  Key (ssn)=(PHI-123) is odd.
CONTEXT:  COPY p, line 2: "PHI-123"
`;
    expect(dumpWarnings(remarks)).toEqual(['pg_dump: invalid input syntax for type date: "…"']);
  });

  it('is cut when there is no end of it', () => {
    const warnings = dumpWarnings('pg_dump: warning: strange\n'.repeat(25));
    expect(warnings).toHaveLength(21);
    expect(warnings.at(-1)).toBe('pg_dump: and 5 more');
  });

  it('is nothing when it says nothing', () => {
    expect(dumpWarnings('')).toEqual([]);
  });
});
