# frozen_string_literal: true

module PuppetX; end
module PuppetX::OmMessaging; end

# The text of one configuration file, read as its reader reads it and changed line by line.
#
# Two programs read such files. oslo.config reads those of style `oslo`: only a blank or a tab at the start of a line
# continues a value, and section names have no case but for DEFAULT. PasteDeploy reads those of style `paste` with
# Python's ConfigParser: a line continues a value when it is indented further than the key, blank lines and comments may
# stand between, and a section or a key may be indented. om_agent/ini does the same; a test holds the two together.
#
# Lines are kept as bytes, so any encoding and any line end survive. Whether the last line ends with a newline is a
# property of the file that no change alters. Puppet's own IniFile cannot be used: it leaves blank lines and empty
# sections behind, and loses the first of two sections of the same name.
class PuppetX::OmMessaging::IniText
  # A block of lines: the header's index, and one past the last line.
  Section = Struct.new(:name, :first, :stop)

  # What a line is to the reader: :blank, :comment, :header, :key, :more (it continues a value) or :bad.
  Line = Struct.new(:kind, :name, :value, :start, :stop)

  # What Python takes for white space, as UTF-8, by length in bytes.
  WHITE = [
    "\t\n\v\f\r\x1c\x1d\x1e\x1f ".b.chars,
    ["\u0085", "\u00a0"].map(&:b),
    [0x1680, *0x2000..0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000].map { |code| [code].pack('U').b },
  ].freeze

  # Sections of this kind are kept in order at the end of a file, so that the result does not depend on which of
  # them was written first.
  ORDERED = 'oslo_messaging_'

  def initialize(text, style = 'oslo')
    @rows = text.b.split("\n", -1)
    @rows = [''.b] if @rows.empty?
    @paste = style == 'paste'
  end

  def to_s
    @rows.join("\n".b)
  end

  # The value of a key, or nil. A value of several lines, or of several assignments, comes joined by newlines.
  def get(section, key)
    found = entries(section, key)
    found.map { |place| value_of(place) }.join("\n") unless found.empty?
  end

  # The key gets this value and no other. The last assignment is the one that counts, so that is the one that stays.
  def set(section, key, value)
    *others, last = entries(section, key)
    return add(section, key, value.b) if last.nil?

    row = @rows[last]
    line = lines[last]
    drop(last, row.byteslice(0, line.start) + value.b + row.byteslice(line.stop..-1))
    others.reverse_each { |place| drop(place) }
  end

  # Removes the key, and with it the section when nothing is left there and `emptied` says so.
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

  # Python takes a carriage return for the end of a line.
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

  # How deep a line is indented, as Python counts.
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

  # One past the last line that continues the value of a key.
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

  # Puts a row in the place of a key and of the lines that continue it; comments between them stay.
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

  # Below the key's commented example if there is one, else below the last line that is not blank.
  def place_in(block, key)
    example = %r{\A\s*[#;]+\s*#{Regexp.escape(key.b)}\s*=}n
    indexes = (block.first...block.stop).to_a
    found = indexes.find { |index| lines[index].kind == :comment && example.match?(@rows[index]) && after(index) != :more }
    found || indexes.reverse.find { |index| lines[index].kind != :blank }
  end

  # What the next line is that is neither blank nor a comment.
  def after(place)
    found = lines.drop(place + 1).find { |line| !%i[blank comment].include?(line.kind) }
    found&.kind
  end

  # The blanks before a new line: those of its neighbours, or the lines behind it would continue its value.
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

  # Takes away what add_section had put there: the header, and the blank line behind or (at the end) before it.
  def remove_section(first)
    stop = sections.find { |block| block.first == first }.stop
    return unless (first + 1...stop).all? { |index| lines[index].kind == :blank }

    neighbour = stop == @rows.length ? first - 1 : first
    replace(first, first + 1)
    replace(neighbour, neighbour + 1) if neighbour >= 0 && neighbour < @rows.length && lines[neighbour].kind == :blank
  end

  # One past the last line; behind a final newline there is no line.
  def content_end
    @rows.last.empty? ? @rows.length - 1 : @rows.length
  end
end
