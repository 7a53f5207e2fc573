/**
 * SQL for psql that may fail for some reasons without harm, and does for no others.
 * @param statement on one line or many, with its semicolon
 * @param reasons condition names, with OR between them (PostgreSQL manual, Appendix A): `undefined_object OR invalid_schema_name`
 * @returns undefined when the statement's own text would end the quote
 */
export function optionalStatement(statement: string, reasons: string): string | undefined {
  if (statement.includes('$loma$')) return undefined;
  return `DO $loma$ BEGIN ${statement} EXCEPTION WHEN ${reasons} THEN NULL; END $loma$;`;
}
