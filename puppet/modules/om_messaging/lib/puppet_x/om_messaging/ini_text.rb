# frozen_string_literal: true

module PuppetX; end
module PuppetX::OmMessaging; end

# The text of one configuration file. It is parsed like the program that uses the file parses it, and edited line by
# line.
#
# Two programs read such files. oslo.config reads those of style `oslo`: only a line that starts with a space or a tab
# continues a value, and section names are case-insensitive except DEFAULT. PasteDeploy reads those of style `paste`
# with Python's ConfigParser: a line continues a value when its indent is deeper than that of the key, blank lines and
# comments may come between, and a section or a key may be indented. om_agent/ini does the same; a test compares the
# two.
#
# Lines are kept as bytes, so that any encoding and any line end survive. No change adds or removes the newline at the
# end of the file. Puppet's own IniFile cannot be used: it leaves blank lines and empty sections behind, and it loses
# the first of two sections of the same name.
class PuppetX::OmMessaging::IniText
  # A section: its name, the index of its header, and the index after its last line.
  Section = Struct.new(:name, :first, :stop)

  # One parsed line. Its kind is :blank, :comment, :header, :key, :more (it continues a value) or :bad.
  Line = Struct.new(:kind, :name, :value, :start, :stop)

  # The characters that are white space in Python, as UTF-8, by length in bytes.
  WHITE = [
    "\t\n\v\f\r\x1c\x1d\x1e\x1f ".b.chars,
    ["\u0085", "\u00a0"].map(&:b),
    [0x1680, *0x2000..0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000].map { |code| [code].pack('U').b },
  ].freeze

  # Sections with this prefix are sorted at the end of a file, so that the result does not depend on the order in which
  # they were written.
  ORDERED = 'oslo_messaging_'

  def initialize(text, style = 'oslo')
    @rows = text.b.split("\n", -1)
    @rows = [''.b] if @rows.empty?
    @paste = style == 'paste'
  end

  def to_s
    @rows.join("\n".b)
  end

  # Returns the value of a key, or nil. Newlines join the lines of a long value, and the values of repeated assignments.
  def get(section, key)
    found = entries(section, key)
    found.map { |place| value_of(place) }.join("\n") unless found.empty?
  end

  # Gives the key exactly this value. The last assignment counts for the program that reads the file, so that one stays.
  def set(section, key, value)
    *others, last = entries(section, key)
    return add(section, key, value.b) if last.nil?

    row = @rows[last]
    line = lines[last]
    drop(last, row.byteslice(0, line.start) + value.b + row.byteslice(line.stop..-1))
    others.reverse_each { |place| drop(place) }
  end

  # Removes the key. If `emptied` is true, also removes its section when nothing is left in it.
  def remove(section, key, emptied = false)
    entries(section, key).reverse_each do |place|
      drop(place)
      remove_section((0...place).select { |index| lines[index].kind == :header }.last) if emptied
    end
  end

  private

  def lines
    @lines ||= (@paste ? paste_lines : oslo_lines)
  end

  def replace(start, stop, *rows)
    @rows[start...stop] = rows
    @rows = [''.b] if @rows.empty?
    @lines = nil
  end

  def section_name(name)
    return paste_name(name) if @paste

    name == 'DEFAULT'.b ? name : name.dup.force_encoding(Encoding::UTF_8).scrub.downcase.b
  end

  # PasteDeploy ignores white space after the colon and at the end: `filter: notify ` is `filter:notify`.
  def paste_name(name)
    colon = name.index(':'.b)
    return name if colon.nil?

    kind = name.byteslice(0, colon)
    name = name.byteslice(0, stop_of(name))
    return name if kind.empty? || (0...colon).any? { |place| white_from(kind, place) }

    "#{kind}:".b + strip(name.byteslice(colon + 1..-1))
  end

  # -- lines

  # Python ends a line at a carriage return.
  def stray_return?(row)
    row.delete_suffix("\r".b).include?("\r".b)
  end

  def oslo_lines
    begun = opened = false
    Array.new(@rows.length) do |index|
      line = oslo_line(index, begun, opened)
      begun ||= line.kind == :header
      opened = %i[key more].include?(line.kind)
      line
    end
  end

  def oslo_line(index, begun, opened)
    row = @rows[index]
    text = row.byteslice(0, stop_of(row))
    return Line.new(:bad) if stray_return?(row)
    return Line.new(:blank) if text.empty?
    return Line.new(opened ? :more : :bad) if text.start_with?(' ', "\t")
    return oslo_header(text) if text.start_with?('[')
    return Line.new(:comment) if text.start_with?('#', ';')

    begun ? key_line(row) : Line.new(:bad)
  end

  def oslo_header(text)
    text.end_with?(']') && text.length > 2 ? Line.new(:header, section_name(text[1..-2])) : Line.new(:bad)
  end

  def paste_lines
    state = { section: nil, indent: 0, opened: false, seen: {} }
    Array.new(@rows.length) { |index| paste_line(index, state) }
  end

  def paste_line(index, state)
    row = @rows[index]
    depth = start_of(row)
    text = row.byteslice(depth, [stop_of(row) - depth, 0].max)
    return Line.new(:bad) if stray_return?(row)
    return Line.new(:blank) if text.empty?
    return Line.new(:comment) if text.start_with?('#', ';')
    return Line.new(:more) if state[:opened] && characters(row, depth) > state[:indent]

    header = %r{\A\[(.+)\]}n.match(text)
    return paste_header(section_name(header[1]), characters(row, depth), state) if header

    paste_key(row, characters(row, depth), state)
  end

  def paste_header(name, depth, state)
    twice = state[:seen].key?([name, nil]) && name != 'DEFAULT'
    state[:seen][[name, nil]] = true
    state.update(section: name, indent: depth, opened: false)
    twice ? Line.new(:bad) : Line.new(:header, name)
  end

  def paste_key(row, depth, state)
    return Line.new(:bad) if state[:section].nil?

    line = key_line(row)
    twice = line.kind == :key && state[:seen].key?([state[:section], line.name])
    state[:seen][[state[:section], line.name]] = true
    state[:indent] = depth
    state[:opened] ||= line.kind == :key && !twice
    twice ? Line.new(:bad) : line
  end

  def key_line(row)
    separator = row.index(%r{[=:]}n)
    return Line.new(:bad) if separator.nil?

    name = strip(row.byteslice(0, separator))
    return Line.new(:bad) if name.empty?

    start = separator + 1 + start_of(row.byteslice(separator + 1..-1))
    stop = stop_of(row)
    return Line.new(:key, name, ''.b, *empty_value(row, separator)) if stop <= start

    value = row.byteslice(start...stop)
    value = value[1..-2] || ''.b if !@paste && value[0] == value[-1] && value.start_with?('"', "'")
    Line.new(:key, name, value, start, stop)
  end

  def empty_value(row, separator)
    start = separator + 1 + row.byteslice(separator + 1..-1)[%r{\A[ \t]*}n].length
    [start, start]
  end

  # -- white space

  def white_from(row, place)
    (1..3).find { |size| WHITE[size - 1].include?(row.byteslice(place, size)) }
  end

  def start_of(row)
    place = 0
    while (size = white_from(row, place))
      place += size
    end
    place
  end

  def stop_of(row)
    stop = row.bytesize
    while (size = (1..3).find { |count| count <= stop && WHITE[count - 1].include?(row.byteslice(stop - count, count)) })
      stop -= size
    end
    stop
  end

  def strip(row)
    start = start_of(row)
    row.byteslice(start, [stop_of(row) - start, 0].max)
  end

  # Returns the indent of a line in characters, as Python counts it.
  def characters(row, bytes)
    row.byteslice(0, bytes).force_encoding(Encoding::UTF_8).length
  end

  # -- editing

  def sections
    heads = lines.each_index.select { |index| lines[index].kind == :header }
    heads.zip([*heads.drop(1), @rows.length]).map { |first, stop| Section.new(lines[first].name, first, stop) }
  end

  def named(section)
    sections.select { |block| block.name == section_name(section.b) }
  end

  def entries(section, key)
    named(section).flat_map do |block|
      (block.first + 1...block.stop).select { |index| lines[index].kind == :key && lines[index].name == key.b }
    end
  end

  # Returns the index after the last line that continues the value of a key.
  def stop_of_entry(place)
    last = place
    ((place + 1)...@rows.length).each do |index|
      break unless %i[more blank comment].include?(lines[index].kind)

      last = index if lines[index].kind == :more
    end
    last + 1
  end

  def value_of(place)
    more = ((place + 1)...stop_of_entry(place)).select { |index| lines[index].kind == :more }
    [lines[place].value, *more.map { |index| strip(@rows[index]) }].join("\n".b)
  end

  # Replaces a key, and the lines that continue it, with a row. Comments between them stay.
  def drop(place, *row)
    stop = stop_of_entry(place)
    kept = ((place + 1)...stop).select { |index| lines[index].kind == :comment }.map { |index| @rows[index] }
    replace(place, stop, *row, *kept)
  end

  def add(section, key, value)
    line = "#{key} = ".b + value
    block = named(section).first
    return add_section(section.b, line) if block.nil?

    place = place_in(block, key)
    replace(place + 1, place + 1, indent(block.first, place) + line + line_end(block.first))
  end

  def line_end(index)
    @rows[index].end_with?("\r".b) ? "\r".b : ''.b
  end

  # Returns the index of the line below which to add a key: its commented example, or the last line that is not blank.
  def place_in(block, key)
    example = %r{\A\s*[#;]+\s*#{Regexp.escape(key.b)}\s*=}n
    indexes = (block.first...block.stop).to_a
    found = indexes.find { |index| lines[index].kind == :comment && example.match?(@rows[index]) && after(index) != :more }
    found || indexes.reverse.find { |index| lines[index].kind != :blank }
  end

  # Returns the kind of the next line that is neither blank nor a comment.
  def after(place)
    found = lines.drop(place + 1).find { |line| !%i[blank comment].include?(line.kind) }
    found&.kind
  end

  # Returns the indent of a new line. It is that of its neighbours; otherwise the lines after it would continue its
  # value.
  def indent(first, place)
    before = ((first + 1)..place).select { |index| lines[index].kind == :key }
    behind = ((place + 1)...@rows.length).select { |index| %i[key header].include?(lines[index].kind) }
    return ''.b if !@paste || (before.empty? && behind.empty?)

    row = @rows[before.empty? ? behind.first : before.last]
    row.byteslice(0, start_of(row))
  end

  def add_section(name, line)
    ending = line_end(0)
    successor = ordered_tail.find { |block| block.name > section_name(name) }
    rows = ["[#{name}]".b + ending, line + ending]
    return replace(successor.first, successor.first, *rows, ending) if successor

    replace(content_end, content_end, *(content_end.zero? ? [] : [ending]), *rows)
  end

  def ordered_tail
    sections.reverse.take_while { |block| block.name.start_with?(ORDERED) }.reverse
  end

  # Removes the lines that add_section added: the header, and the blank line after it, or before it at the end of the
  # file.
  def remove_section(first)
    stop = sections.find { |block| block.first == first }.stop
    return unless (first + 1...stop).all? { |index| lines[index].kind == :blank }

    neighbour = stop == @rows.length ? first - 1 : first
    replace(first, first + 1)
    replace(neighbour, neighbour + 1) if neighbour >= 0 && neighbour < @rows.length && lines[neighbour].kind == :blank
  end

  # Returns the index after the last line. After a final newline there is no line.
  def content_end
    @rows.last.empty? ? @rows.length - 1 : @rows.length
  end
end
