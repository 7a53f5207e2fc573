import {describe, expect, it} from '@jest/globals';
import {rowCountChecks, withoutValues} from '../../../src/lib/load/psql.ts';

describe('an error of psql', () => {
  it.each([
    ['invalid input syntax for type integer: "Jane Doe 123"', 'invalid input syntax for type integer: "…"'],
    [
      'invalid input syntax for type date: "x"y" at character 8',
      'invalid input syntax for type date: "…" at character 8',
    ],
    ['invalid input value for enum mood: "secret"', 'invalid input value for enum mood: "…"'],
    ['value "99999999999" is out of range for type integer', 'value "…" is out of range for type integer'],
    ['date/time field value out of range: "2025-99-99"', 'date/time field value out of range: "…"'],
    [
      'duplicate key value violates unique constraint "t_pkey"',
      'duplicate key value violates unique constraint "t_pkey"',
    ],
    ['relation "public.patients" does not exist', 'relation "public.patients" does not exist'],
  ])('shows no value of a row: %s', (message, shown) => {
    expect(withoutValues(message)).toBe(shown);
  });

  it('keeps what a failed row count says', () => {
    const message = 'invalid input syntax for type integer: "loma-backup row count: table public.x has 1 rows, not 2"';
    expect(withoutValues(message)).toBe(message);
  });
});

describe('the row count checks', () => {
  it('quote names inside and outside of literals', () => {
    const [sql] = rowCountChecks([{table: `public."it's"`, rows: 3}]).split('\n');
    expect(sql).toContain(`row_security_active('public."it''s"')`);
    expect(sql).toContain(`FROM ONLY public."it's";`);
  });
});
